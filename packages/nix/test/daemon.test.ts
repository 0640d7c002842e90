// The client against a server that sends exactly the bytes of a test, over a real socket.
import { hash } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import type { Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { connectDaemon, parseStorePath, readClosure } from '@bagcheck/nix'
import type { PathInfo } from '@bagcheck/nix'
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

  test('an answer with any byte wrong is refused with a code, or is facts all the same', async () => {
    const bytes = answer(a, b)
    for (let at = 0; at < bytes.length; at++) {
      const flipped = Buffer.from(bytes)
      flipped[at] = (flipped[at] ?? 0) ^ (1 << (at & 7))
      const found = await ask(hello34, flipped).catch((error: unknown) => {
        expect(error).toMatchObject({ code: expect.stringMatching(/^DAEMON_/) })
        return undefined
      })
      if (found !== undefined) expect(found.path).toBe(a)
    }
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
