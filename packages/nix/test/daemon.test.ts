// The client against a server that sends exactly the bytes of a test, over a real socket.
import { hash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import type { Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connectDaemon, NixError, parseStorePath, readClosure } from '@bagcheck/nix'
import type { PathInfo } from '@bagcheck/nix'
import { anyFacts } from './path-info/facts.ts'
import { str } from './nar/archive.ts'

const u64 = (value: number | bigint): Buffer => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}
const list = (...items: readonly string[]): Buffer =>
  Buffer.concat([u64(items.length), ...items.map(str)])

const LAST = u64(0x616c7473)
const MAGIC = u64(0x6478696f)
const hello34 = Buffer.concat([MAGIC, u64(0x122), str('2.8.0'), LAST])
const hello38 = Buffer.concat([MAGIC, u64(0x126), list('feature'), str('2.34.8'), u64(1), LAST])

const a = parseStorePath(`/nix/store/${'a'.repeat(32)}-a`)
const b = parseStorePath(`/nix/store/${'b'.repeat(32)}-b`)
const drv = `/nix/store/${'d'.repeat(32)}-a.drv`
const answer = (...references: readonly string[]): Buffer =>
  Buffer.concat([
    ...[LAST, u64(1), str(drv), str(hash('sha256', '')), list(...references)],
    ...[u64(1), u64(120), u64(1), list('cache:sig'), str('')],
  ])
const invalid = Buffer.concat([LAST, u64(0)])
const refused = Buffer.concat([
  ...[u64(0x63787470), str('Error'), u64(0), str('Error'), str('no such thing')],
  ...[u64(0), u64(1), u64(0), str('while asking')],
])
const chatter = Buffer.concat([
  ...[u64(0x6f6c6d67), str('a log line')],
  ...[u64(0x53545254), u64(2n ** 63n), u64(3), u64(0), str('copying'), u64(2), u64(0), u64(7)],
  ...[u64(1), str('field'), u64(0), u64(0x52534c54), u64(1), u64(1), u64(0)],
  ...[u64(0x53544f50), u64(2n ** 63n)],
])

let scratch: string
let next = 0
const servers: Server[] = []
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'bagcheck-daemon-'))
})
afterAll(() => {
  for (const server of servers) server.close()
  rmSync(scratch, { recursive: true })
})

/** A server that sends `bytes` to whoever connects, and then hangs up or falls silent. */
async function serve(bytes: Buffer, then: 'end' | 'silence' = 'silence'): Promise<string> {
  const socketPath = join(scratch, String(next++))
  const server = createServer((socket) => {
    socket.on('error', () => undefined) // the client may be gone
    socket.resume()
    if (then === 'end') socket.end(bytes)
    else socket.write(bytes)
  })
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(socketPath, resolve))
  return socketPath
}

async function ask(...bytes: readonly Buffer[]): Promise<PathInfo | undefined> {
  const socketPath = await serve(Buffer.concat(bytes), 'end')
  await using daemon = await connectDaemon({ socketPath })
  return await daemon.queryPathInfo(a)
}

describe('the daemon client', () => {
  test.each([
    ['1.34', hello34, '2.8.0'],
    ['1.38', hello38, '2.34.8'],
  ])('agrees with protocol %s', async (_, hello, version) => {
    await using daemon = await connectDaemon({ socketPath: await serve(hello) })
    expect(daemon.nixVersion).toBe(version)
  })

  test('reads facts, with log lines and activities before them', async () => {
    expect(await ask(hello34, chatter, answer(b, a))).toEqual({
      path: a,
      narHash: `sha256-${hash('sha256', '', 'base64')}`,
      narSize: 120,
      references: [a, b],
      deriver: drv,
      ultimate: true,
      signatures: ['cache:sig'],
    })
    expect(await ask(hello34, invalid)).toBeUndefined()
  })

  test('asks several questions at once, and goes on after a refusal', async () => {
    const socketPath = await serve(Buffer.concat([hello34, answer(b), refused, invalid]))
    await using daemon = await connectDaemon({ socketPath })
    const answers = await Promise.allSettled([a, b, b].map((path) => daemon.queryPathInfo(path)))
    expect(answers).toMatchObject([
      { value: { path: a, references: [b] } },
      { reason: { code: 'DAEMON_ERROR', message: expect.stringContaining('no such thing') } },
      { status: 'fulfilled', value: undefined },
    ])
  })

  test('keeps a bounded amount of what nobody asked for', async () => {
    const socketPath = join(scratch, String(next++))
    let flushed: () => void
    const sent = new Promise<void>((resolve) => (flushed = resolve))
    const server = createServer((socket) => {
      socket.on('error', () => undefined).resume()
      socket.write(hello34)
      socket.write(Buffer.alloc(80 << 20), () => flushed())
    })
    servers.push(server)
    await new Promise<void>((resolve) => server.listen(socketPath, resolve))
    await using daemon = await connectDaemon({ socketPath })
    await sent
    await expect(daemon.queryPathInfo(a)).rejects.toMatchObject({ code: 'DAEMON_LIMIT' })
  })

  test('reads a closure, and refuses one with a path that is not valid', async () => {
    const good = await connectDaemon({
      socketPath: await serve(Buffer.concat([hello34, answer(b), answer()])),
    })
    expect(await readClosure(good, a)).toMatchObject({
      root: a,
      entries: [{ path: a }, { path: b }],
    })
    await good.close()
    const bad = await connectDaemon({
      socketPath: await serve(Buffer.concat([hello34, answer(b), invalid])),
    })
    await expect(readClosure(bad, a)).rejects.toMatchObject({
      code: 'PATH_INVALID',
      detail: { path: b },
    })
    await bad.close()
  })

  test('an answer cut off anywhere is DAEMON_CLOSED', async () => {
    const whole = Buffer.concat([hello38, chatter, answer(a, b)])
    for (let length = 0; length < whole.length; length++)
      await expect(ask(whole.subarray(0, length))).rejects.toMatchObject({
        code: expect.stringMatching(/^DAEMON_(CLOSED|UNREACHABLE)$/),
      })
  })

  const fields = (...parts: readonly Buffer[]): Buffer => Buffer.concat([LAST, u64(1), ...parts])
  const digest = str(hash('sha256', ''))
  test.each([
    ['a greeting of something else', [u64(0x6e697863), u64(0x126)], 'DAEMON_PROTOCOL'],
    ['protocol 1.33', [MAGIC, u64(0x121)], 'DAEMON_PROTOCOL'],
    ['protocol 2.0', [MAGIC, u64(0x200)], 'DAEMON_PROTOCOL'],
    ['a version string without end', [MAGIC, u64(0x122), u64(2n ** 40n)], 'DAEMON_LIMIT'],
    ['too many features', [MAGIC, u64(0x126), u64(2n ** 62n)], 'DAEMON_LIMIT'],
    ['an unknown message', [hello34, u64(0x12345)], 'DAEMON_PROTOCOL'],
    ['a request to read', [hello34, u64(0x64617461), u64(1)], 'DAEMON_PROTOCOL'],
    ['a log line of 1 EiB', [hello34, u64(0x6f6c6d67), u64(2n ** 60n)], 'DAEMON_LIMIT'],
    ['a flag that is 2', [hello34, LAST, u64(2)], 'DAEMON_LIMIT'],
    [
      'padding that is not zero',
      [hello34, fields(u64(1), Buffer.from('xyzzy!!!'))],
      'DAEMON_PROTOCOL',
    ],
    [
      'a deriver that is no path',
      [hello34, fields(str('x'), digest, list(), u64(0), u64(8), u64(0), list(), str(''))],
      'DAEMON_PROTOCOL',
    ],
    ['a hash that is none', [hello34, fields(str(''), str('x'))], 'DAEMON_PROTOCOL'],
    ['2^32 references', [hello34, fields(str(''), digest, u64(2n ** 32n))], 'DAEMON_LIMIT'],
    ['a reference that is no path', [hello34, answer('/etc/passwd')], 'DAEMON_PROTOCOL'],
    ['a reference twice', [hello34, answer(b, b)], 'DAEMON_PROTOCOL'],
    [
      'a size of 0',
      [hello34, fields(str(''), digest, list(), u64(0), u64(0), u64(0), list(), str(''))],
      'DAEMON_PROTOCOL',
    ],
    [
      'a size of 2^53',
      [hello34, fields(str(''), digest, list(), u64(0), u64(2n ** 53n))],
      'DAEMON_LIMIT',
    ],
  ])('refuses %s', async (_, bytes, code) => {
    await expect(ask(...bytes)).rejects.toMatchObject({ code })
  })

  test('a failed connection answers nothing more', async () => {
    const socketPath = await serve(Buffer.concat([hello34, LAST, u64(2), answer()]))
    await using daemon = await connectDaemon({ socketPath })
    const answers = await Promise.allSettled([daemon.queryPathInfo(a), daemon.queryPathInfo(a)])
    expect(answers).toMatchObject([{ status: 'rejected' }, { status: 'rejected' }])
    await expect(daemon.queryPathInfo(a)).rejects.toMatchObject({ code: 'DAEMON_LIMIT' })
  })

  test('a daemon that falls silent is DAEMON_TIMEOUT, in the handshake and after it', async () => {
    await expect(
      connectDaemon({ socketPath: await serve(Buffer.alloc(0)), timeoutMs: 20 }),
    ).rejects.toMatchObject({ code: 'DAEMON_TIMEOUT' })
    await using daemon = await connectDaemon({ socketPath: await serve(hello34), timeoutMs: 20 })
    await expect(daemon.queryPathInfo(a)).rejects.toMatchObject({ code: 'DAEMON_TIMEOUT' })
  })

  test('no daemon is DAEMON_UNREACHABLE', async () => {
    await expect(connectDaemon({ socketPath: join(scratch, 'none') })).rejects.toMatchObject({
      code: 'DAEMON_UNREACHABLE',
    })
  })

  test('giving up is DAEMON_CLOSED, before and while it waits', async () => {
    const socketPath = await serve(hello34)
    await expect(
      connectDaemon({ socketPath, signal: AbortSignal.abort('why') }),
    ).rejects.toMatchObject({ code: 'DAEMON_CLOSED', cause: 'why' })
    const controller = new AbortController()
    const daemon = await connectDaemon({ socketPath, signal: controller.signal })
    const waiting = daemon.queryPathInfo(a)
    controller.abort('enough')
    await expect(waiting).rejects.toMatchObject({ code: 'DAEMON_CLOSED', cause: 'enough' })
  })
})

describe('a peer that is no daemon', () => {
  const facts = (info: PathInfo): Buffer =>
    Buffer.concat([
      ...[LAST, u64(1), str(info.deriver ?? ''), str(info.narHash), list(...info.references)],
      ...[u64(1), u64(info.narSize), u64(0), list(...(info.signatures ?? [])), str(info.ca ?? '')],
    ])
  let current: {
    readonly pieces: readonly Uint8Array[]
    readonly last: 'end' | 'break' | 'silence'
  }
  let socketPath: string
  beforeAll(async () => {
    socketPath = join(scratch, 'peer')
    const server = createServer({ noDelay: true }, (socket) => {
      socket.on('error', () => undefined).resume()
      for (const piece of current.pieces) socket.write(piece)
      if (current.last === 'end') socket.end()
      else if (current.last === 'break') socket.destroy()
    })
    servers.push(server)
    await new Promise<void>((resolve) => server.listen(socketPath, resolve))
  })

  /** What three questions at once are answered with: facts, nothing, or a code. */
  async function answers(timeoutMs: number): Promise<(PathInfo | string | undefined)[]> {
    const codeOf = (error: unknown): string => {
      if (!(error instanceof NixError) || !error.code.startsWith('DAEMON_')) throw error
      return error.code
    }
    try {
      await using daemon = await connectDaemon({ socketPath, timeoutMs })
      const asked = [a, b, a].map((path) => daemon.queryPathInfo(path).catch(codeOf))
      return await Promise.all(asked)
    } catch (error) {
      return [codeOf(error)]
    }
  }

  const isFact = ({ path, narSize, references, narHash }: PathInfo): boolean =>
    [path, ...references].every((one) => parseStorePath(one) === one) &&
    references.every((one, n) => n === 0 || (references[n - 1] ?? '') < one) &&
    /^sha256-.{44}$/.test(narHash) &&
    narSize > 0

  function cutInto(bytes: Uint8Array, sizes: readonly number[]): Uint8Array[] {
    const pieces: Uint8Array[] = []
    for (let at = 0, n = 0; at < bytes.length; n++) {
      const size = sizes[n % sizes.length] ?? bytes.length
      pieces.push(bytes.subarray(at, at + size))
      at += size
    }
    return pieces
  }

  const sizes = fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 5 })
  const whole = [hello34, hello38].map((hello) =>
    Buffer.concat([hello, chatter, answer(a, b), refused, invalid]),
  )

  test('any facts come back, in pieces of any size', async () => {
    await fc.assert(
      fc.asyncProperty(
        anyFacts,
        sizes,
        fc.constantFrom(hello34, hello38),
        async (info, cut, hello) => {
          const bytes = Buffer.concat([hello, facts(info), refused, facts(info)])
          current = { pieces: cutInto(bytes, cut), last: 'silence' }
          const expected = { ...info, path: a, ultimate: false, signatures: [] }
          expect(await answers(10_000)).toEqual([expected, 'DAEMON_ERROR', expected])
        },
      ),
    )
  })

  test('with any bit flipped in all that it sends is given facts or a code for each question', async () => {
    for (const bytes of whole)
      for (let at = 0; at < bytes.length; at++) {
        const flipped = Buffer.from(bytes)
        flipped[at] = (flipped[at] ?? 0) ^ (1 << (at & 7))
        current = { pieces: [flipped], last: 'end' }
        for (const one of await answers(10_000))
          if (typeof one === 'object') expect(isFact(one)).toBe(true)
      }
  })

  test('that sends anything, in any pieces, and hangs up, breaks off or falls silent, keeps nobody waiting', async () => {
    const word = fc.constantFrom<Uint8Array>(
      ...[hello34, hello38, LAST, chatter, answer(a), refused, invalid, u64(0), u64(1), str('x')],
      ...[u64(0x6f6c6d67), u64(0x63787470), u64(2n ** 32n), u64(2n ** 64n - 1n), u64(4096)],
    )
    const mixed = fc
      .array(fc.oneof(word, fc.uint8Array({ maxLength: 16 })), { maxLength: 8 })
      .map((parts) => Buffer.concat(parts))
    const cut = fc
      .tuple(fc.constantFrom(...whole), fc.nat(), fc.nat(40), mixed)
      .map(([bytes, at, drop, put]) => {
        const from = at % bytes.length
        return Buffer.concat([bytes.subarray(0, from), put, bytes.subarray(from + drop)])
      })
    const greeted = mixed.map((bytes) => Buffer.concat([hello34, bytes]))
    const ending = fc.constantFrom('end', 'end', 'end', 'break', 'silence')
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(mixed, greeted, cut),
        sizes,
        ending,
        async (bytes, pieces, last) => {
          current = { pieces: cutInto(bytes, pieces), last }
          for (const one of await answers(last === 'silence' ? 5 : 10_000))
            if (typeof one === 'object') expect(isFact(one)).toBe(true)
        },
      ),
      { numRuns: 500 },
    )
  })

  const open = Buffer.concat([hello34, LAST, u64(1)])
  const named = Buffer.concat([open, str(''), str(hash('sha256', ''))])
  const sized = Buffer.concat([named, list(), u64(1), u64(8), u64(0)])
  const error = Buffer.concat([hello34, u64(0x63787470), str(''), u64(0), str('')])
  test.each<[string, Buffer, number]>([
    ['features', Buffer.concat([MAGIC, u64(0x126)]), 100],
    ['bytes of version', Buffer.concat([MAGIC, u64(0x122)]), 4096],
    ['bytes of deriver', open, 512],
    ['bytes of NAR hash', Buffer.concat([open, str('')]), 4096],
    ['references', named, 100_000],
    ['bytes of reference', Buffer.concat([named, u64(1)]), 512],
    ['signatures', sized, 1000],
    ['bytes of signature', Buffer.concat([sized, u64(1)]), 4096],
    ['bytes of content address', Buffer.concat([sized, list()]), 4096],
    ['bytes of log', Buffer.concat([hello34, u64(0x6f6c6d67)]), 1 << 20],
    ['fields', Buffer.concat([hello34, u64(0x52534c54), u64(1), u64(1)]), 1000],
    ['bytes of error', error, 1 << 20],
    ['traces', Buffer.concat([error, str(''), u64(0)]), 1000],
  ])('that announces too many %s is not waited for', async (_, before, max) => {
    current = { pieces: [before, u64(max)], last: 'end' }
    expect((await answers(10_000))[0]).toMatch(/^DAEMON_(CLOSED|UNREACHABLE)$/) // it was waited for
    current = { pieces: [before, u64(max + 1)], last: 'silence' }
    expect((await answers(10_000))[0]).toBe('DAEMON_LIMIT')
  })
})
