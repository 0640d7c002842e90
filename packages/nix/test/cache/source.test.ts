import { spawnSync } from 'node:child_process'
import { createServer } from 'node:http'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { NAR_INFO_MAX_BYTES, openBinaryCache, readClosure, storePathHash } from '@bagcheck/nix'
import type { BinaryCache, BinaryCacheOptions } from '@bagcheck/nix'
import { storePath } from '../path-info/facts.ts'
import {
  archive,
  chainOfPaths,
  madeNarInfo,
  newCacheKey,
  writeCacheInfo,
  writeNarInfo,
} from './made-cache.ts'

const [a, b, stranger] = [newCacheKey('a'), newCacheKey('b'), newCacheKey('stranger')]
const trust = { keys: [a.publicKey, b.publicKey] }
const chain = chainOfPaths(150)
const [root = storePath(0, 'none')] = chain.keys()
const cut = storePath(201, 'cut-off')
const doubly = storePath(202, 'signed-by-two')
const unsigned = storePath(203, 'unsigned')
const foreign = storePath(204, 'signed-by-a-stranger')
const swapped = storePath(205, 'swapped')
const missing = storePath(206, 'missing')
const huge = storePath(207, 'huge')
const dangling = storePath(208, 'dangling')

let directory: string
let server: Server
let base: string
/** What the server does with the next requests, instead of serving the file. */
let answers: ((request: IncomingMessage, response: ServerResponse) => void)[] = []
let seen: string[] = []
let open = 0
let mostOpen = 0

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'bagcheck-cache-'))
  mkdirSync(join(directory, 'nar'))
  writeCacheInfo(directory)
  for (const [path, references] of chain)
    writeNarInfo(directory, madeNarInfo(path, references, [a]))
  writeNarInfo(directory, madeNarInfo(doubly, [], [a, b]))
  writeNarInfo(directory, madeNarInfo(unsigned, [], []))
  writeNarInfo(directory, madeNarInfo(foreign, [], [stranger]))
  writeNarInfo(directory, madeNarInfo(dangling, [missing], [a]))
  const file = (path: typeof root): string => join(directory, `${storePathHash(path)}.narinfo`)
  writeFileSync(file(swapped), readFileSync(file(doubly)))
  writeFileSync(file(cut), readFileSync(file(doubly)).subarray(0, 150))
  writeFileSync(file(huge), Buffer.alloc(NAR_INFO_MAX_BYTES + 1, 'a'))
  writeFileSync(join(directory, `nar/${storePathHash(doubly)}.nar.gz`), gzipSync(archive))

  server = createServer((request, response) => {
    seen.push(request.url ?? '')
    mostOpen = Math.max(mostOpen, ++open)
    response.once('close', () => open--)
    const answer = answers.shift()
    if (answer !== undefined) return answer(request, response)
    // Late enough for requests to meet.
    setImmediate(() => {
      try {
        response.end(readFileSync(join(directory, (request.url ?? '').replace('/cache/', '/'))))
      } catch {
        response.writeHead(404).end('no such file')
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  base = `http://127.0.0.1:${(server.address() as AddressInfo).port}/cache`
})
afterAll(async () => {
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
  rmSync(directory, { recursive: true })
})

const code = (value: string): unknown => expect.objectContaining({ code: value })

describe.each(['directory', 'file URL', 'HTTP'] as const)('a binary cache by %s', (kind) => {
  const openCache = (options: Partial<BinaryCacheOptions> = {}): Promise<BinaryCache> => {
    const location = { directory, 'file URL': pathToFileURL(directory).href, HTTP: base }[kind]
    return openBinaryCache(location, { trust, retryDelayMs: 1, ...options })
  }

  test('gives a closure for which keys vouch, asking once for each path', async () => {
    seen = []
    mostOpen = 0
    const cache = await openCache()
    expect(cache.info).toEqual({ wantMassQuery: true, priority: 40 })
    const manifest = await readClosure(cache, root)
    expect(manifest.entries.map((entry) => entry.path)).toEqual([...chain.keys()].sort())
    if (kind === 'HTTP') {
      expect(new Set(seen).size).toBe(seen.length)
      expect(seen).toHaveLength(chain.size + 1)
      expect(mostOpen).toBeGreaterThan(1)
      expect(mostOpen).toBeLessThanOrEqual(64)
    }
    await cache.close()
  })

  test('gives undefined for a path that it lacks, and no closure with one', async () => {
    const cache = await openCache()
    expect(await cache.queryPathInfo(missing)).toBeUndefined()
    await expect(readClosure(cache, dangling)).rejects.toMatchObject({
      code: 'PATH_INVALID',
      detail: { path: missing },
    })
    await cache.close()
  })

  test.each([
    ['that nobody signed', unsigned, 'SIGNATURE_MISSING'],
    ['that a stranger signed', foreign, 'SIGNATURE_MISSING'],
    ['in place of those of another path', swapped, 'NAR_INFO_PATH'],
    ['that are cut off', cut, 'NAR_INFO_LINE'],
    ['that are too long', huge, 'CACHE_LIMIT'],
  ])('refuses facts %s', async (_, path, expected) => {
    const cache = await openCache()
    await expect(cache.queryPathInfo(path)).rejects.toEqual(code(expected))
    await cache.close()
  })

  test('wants as many keys as it was told', async () => {
    const cache = await openCache({ trust: { ...trust, threshold: 2 } })
    expect(await cache.queryPathInfo(doubly)).toMatchObject({ path: doubly })
    await expect(cache.queryPathInfo(root)).rejects.toEqual(code('SIGNATURE_MISSING'))
    await cache.close()
  })

  test('gives an archive that is checked while it is read', async () => {
    const cache = await openCache()
    const info = madeNarInfo(doubly, [], [])
    expect(Buffer.concat(await Array.fromAsync(cache.openNar(info)))).toEqual(archive)
    const other = { ...info, narHash: madeNarInfo(doubly, [], []).narHash.replace(/-./, '-A') }
    await expect(Array.fromAsync(cache.openNar(other as typeof info))).rejects.toEqual(
      code('CONTENT_MISMATCH'),
    )
    expect(() => cache.openNar({ ...info, url: '../outside' })).toThrow(code('NAR_INFO_VALUE'))
    const lost = Array.fromAsync(cache.openNar({ ...info, url: 'nar/lost.nar.gz' }))
    await expect(lost).rejects.toMatchObject({ code: expect.stringMatching(/^CACHE_/) })
    await cache.close()
  })

  test('ends with the reason of the signal', async () => {
    const controller = new AbortController()
    const cache = await openCache({ signal: controller.signal })
    controller.abort('why')
    await expect(cache.queryPathInfo(root)).rejects.toBe('why')
  })

  test('is not asked any more once it is closed', async () => {
    const cache = await openCache()
    await cache.close()
    await expect(cache.queryPathInfo(root)).rejects.toEqual(code('CACHE_UNREACHABLE'))
  })

  // Whoever reads several archives at once closes the cache as soon as one of them is wrong.
  test('gives the reason too where it is closed while an archive is being opened', async () => {
    const cache = await openCache()
    const info = await cache.queryPathInfo(doubly)
    if (info === undefined) throw new TypeError('expected a path of the cache')
    const first = cache.openNar(info).next()
    await cache.close()
    await expect(first).rejects.toEqual(code('CACHE_UNREACHABLE'))
  })

  test('needs a threshold that its keys can meet', async () => {
    await expect(openCache({ trust: { keys: [] } })).rejects.toThrow(TypeError)
    await expect(openCache({ concurrency: 0 })).rejects.toThrow(TypeError)
  })
})

describe('over HTTP', () => {
  const ask = async (
    planned: typeof answers,
    options: Partial<BinaryCacheOptions> = {},
  ): Promise<unknown> => {
    const cache = await openBinaryCache(base, { trust, retryDelayMs: 1, ...options })
    answers = planned
    try {
      return await cache.queryPathInfo(doubly)
    } finally {
      answers = []
      await cache.close()
    }
  }
  const status = (value: number) => (_: IncomingMessage, response: ServerResponse) => {
    response.writeHead(value).end('an error page')
  }
  const hangUp = (request: IncomingMessage): unknown => request.socket.destroy()
  const stall = (): void => undefined

  test.each([
    ['busy', [status(503), status(429), status(500)]],
    ['hung up on', [hangUp, hangUp]],
    ['stalled', [stall]],
  ])('what was %s is asked again', async (_, planned) => {
    expect(await ask(planned, { timeoutMs: 200 })).toMatchObject({ path: doubly })
  })

  test.each([
    ['an error that stays', Array.from({ length: 9 }, () => status(500)), 'CACHE_RESPONSE', 5],
    ['no answer', Array.from({ length: 9 }, () => hangUp), 'CACHE_UNREACHABLE', 5],
    ['silence', Array.from({ length: 9 }, () => stall), 'CACHE_TIMEOUT', 5],
    ['a refusal, at once', [status(403)], 'CACHE_RESPONSE', 1],
    ['a status that says nothing, at once', [status(418)], 'CACHE_RESPONSE', 1],
  ])('%s is told by its code', async (_, planned, expected, atMost) => {
    seen = []
    await expect(ask(planned, { timeoutMs: 50 })).rejects.toEqual(code(expected))
    expect(seen.filter((url) => url.endsWith('.narinfo')).length).toBeLessThanOrEqual(atMost)
  })

  test.each([404, 410])('status %i means that the cache lacks the path', async (value) => {
    expect(await ask([status(value)])).toBeUndefined()
  })

  test('an endless body is left at the limit', async () => {
    const endless = (_: IncomingMessage, response: ServerResponse): void => {
      const more = (): void => {
        while (!response.destroyed && response.write(Buffer.alloc(1 << 16, 'a')));
        response.once('drain', more)
      }
      more()
    }
    await expect(ask([endless])).rejects.toEqual(code('CACHE_LIMIT'))
  })

  test('a body that trickles is cut off by the time, not kept alive by it', async () => {
    const trickle = (_: IncomingMessage, response: ServerResponse): void => {
      const timer = setInterval(() => response.write('a'), 10)
      response.once('close', () => clearInterval(timer))
    }
    const planned = Array.from({ length: 9 }, () => trickle)
    await expect(ask(planned, { timeoutMs: 60 })).rejects.toEqual(code('CACHE_TIMEOUT'))
  })

  test('a body that is shorter than it was said to be is not taken', async () => {
    const short = (_: IncomingMessage, response: ServerResponse): void => {
      const text = readFileSync(join(directory, `${storePathHash(doubly)}.narinfo`))
      response.writeHead(200, { 'content-length': text.length + 10 })
      response.write(text, () => response.destroy())
    }
    expect(await ask([short])).toMatchObject({ path: doubly }) // from the next attempt
  })

  test('headers are sent, and a location with credentials is refused without showing them', async () => {
    let sent: string | undefined
    const look = (request: IncomingMessage, response: ServerResponse): void => {
      sent = request.headers.authorization
      response.writeHead(404).end()
    }
    await ask([look], { headers: { authorization: 'Bearer t' } })
    expect(sent).toBe('Bearer t')
    const opening = openBinaryCache('http://user:hunter2@127.0.0.1:1/', { trust })
    await expect(opening).rejects.toEqual(code('CACHE_UNREACHABLE'))
    await expect(opening).rejects.not.toThrow(/hunter2/)
  })

  test('a fetch that is passed in is the one that is used', async () => {
    const asked: string[] = []
    const fetch: typeof globalThis.fetch = async (input) => {
      asked.push(String(input))
      return new Response(readFileSync(join(directory, 'nix-cache-info')))
    }
    const cache = await openBinaryCache('https://cache.test/sub', { trust, fetch })
    await cache.close()
    expect(asked).toEqual(['https://cache.test/sub/nix-cache-info'])
  })
})

describe('what is no binary cache', () => {
  test.each([
    ['a directory without nix-cache-info', () => join(directory, 'nar'), 'CACHE_INFO'],
    ['no directory', () => join(directory, 'nowhere'), 'CACHE_INFO'],
    ['a server without nix-cache-info', () => base.replace('/cache', '/elsewhere'), 'CACHE_INFO'],
    ['nobody there', () => 'http://127.0.0.1:9/', 'CACHE_UNREACHABLE'],
    ['another kind of location', () => 's3://bucket', 'CACHE_UNREACHABLE'],
    ['a file URL of another host', () => 'file://elsewhere/x', 'CACHE_UNREACHABLE'],
  ])('%s', async (_, location, expected) => {
    await expect(openBinaryCache(location(), { trust, retryDelayMs: 1 })).rejects.toEqual(
      code(expected),
    )
  })

  test('a pipe that nobody writes to, in the place of a file', async () => {
    const odd = mkdtempSync(join(directory, 'odd-'))
    const pipe = (name: string): void => {
      rmSync(join(odd, name), { force: true })
      expect(spawnSync('mkfifo', [join(odd, name)]).status).toBe(0)
    }
    pipe('nix-cache-info')
    await expect(openBinaryCache(odd, { trust })).rejects.toEqual(code('CACHE_RESPONSE'))
    rmSync(join(odd, 'nix-cache-info'))
    writeCacheInfo(odd)
    await using cache = await openBinaryCache(odd, { trust })
    pipe(`${storePathHash(doubly)}.narinfo`)
    await expect(cache.queryPathInfo(doubly)).rejects.toEqual(code('CACHE_RESPONSE'))
    mkdirSync(join(odd, 'nar'))
    const info = madeNarInfo(doubly, [], [])
    pipe(info.url)
    await expect(Array.fromAsync(cache.openNar(info))).rejects.toEqual(code('CACHE_RESPONSE'))
  })

  test('a directory in the place of a file, and a loop of links', async () => {
    const odd = mkdtempSync(join(directory, 'odd-'))
    mkdirSync(join(odd, 'nix-cache-info'))
    await expect(openBinaryCache(odd, { trust })).rejects.toEqual(code('CACHE_RESPONSE'))
    rmSync(join(odd, 'nix-cache-info'), { recursive: true })
    symlinkSync('nix-cache-info', join(odd, 'nix-cache-info'))
    await expect(openBinaryCache(odd, { trust })).rejects.toEqual(code('CACHE_UNREACHABLE'))
  })
})
