import { inspect } from 'node:util'
import { generateKeyPairSync } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import {
  encodeNix32,
  findSigners,
  formatCachePublicKey,
  makeStorePath,
  narHashDigest,
  narHashFromDigest,
  namesItsContent,
  parseCachePublicKey,
  parseCacheSecretKey,
  parseCacheSignature,
  parseStorePath,
  pathInfoFingerprint,
  signPathInfo,
  verifyPathInfo,
} from '@bagcheck/nix'
import type { CacheSecretKey, PathInfo } from '@bagcheck/nix'

function newKey(name: string): { readonly text: string; readonly secret: CacheSecretKey } {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const seed = privateKey.export({ format: 'der', type: 'pkcs8' }).subarray(-32)
  const point = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32)
  const text = `${name}:${Buffer.concat([seed, point]).toString('base64')}`
  return { text, secret: parseCacheSecretKey(text) }
}

const glibc = parseStorePath('/nix/store/0c0i1lczx1n1qc0y4yf7ykq1nyzrqj2f-glibc-2.36')
const hello = parseStorePath('/nix/store/10s5j3mfdg22k1597x580qrhprnzcjwb-hello-2.12')
const NIX32 = encodeNix32(Buffer.alloc(32, 7))
const info: PathInfo = {
  path: hello,
  narHash: narHashFromDigest(Buffer.alloc(32, 7)),
  narSize: 226_560,
  references: [glibc, hello],
}
const a = newKey('a')
const b = newKey('b')
const c = newKey('c')
const signed = (...keys: CacheSecretKey[]): PathInfo => ({
  ...info,
  signatures: keys.map((key) => signPathInfo(info, key)),
})

describe('the fingerprint', () => {
  test('holds path, NAR hash in nix32, size and full references in order', () => {
    expect(pathInfoFingerprint({ ...info, references: [hello, glibc] })).toBe(
      `1;${hello};sha256:${NIX32};226560;${glibc},${hello}`,
    )
  })

  test.each([
    ['path', { ...info, path: glibc }],
    ['hash', { ...info, narHash: narHashFromDigest(Buffer.alloc(32, 8)) }],
    ['size', { ...info, narSize: 226_561 }],
    ['references', { ...info, references: [glibc] }],
  ])('a signature for another %s counts for nothing', (_, other) => {
    const { signatures = [] } = signed(a.secret)
    expect(findSigners({ ...other, signatures }, [a.secret.publicKey])).toEqual([])
    expect(findSigners({ ...info, signatures }, [a.secret.publicKey])).toHaveLength(1)
  })
})

describe('k of n keys', () => {
  const keys = [a.secret.publicKey, b.secret.publicKey, c.secret.publicKey]

  test('are enough from the threshold on', () => {
    const two = signed(a.secret, c.secret)
    expect(verifyPathInfo(two, { keys, threshold: 2 })).toEqual({
      by: 'signatures',
      keys: [a.secret.publicKey, c.secret.publicKey],
    })
    expect(() => verifyPathInfo(two, { keys, threshold: 3 })).toThrow(
      expect.objectContaining({
        code: 'SIGNATURE_MISSING',
        detail: { path: hello, signed: 2, threshold: 3 },
      }),
    )
  })

  test('one key counts once, however many signatures and names it has', () => {
    const renamed = parseCacheSecretKey(a.text.replace('a:', 'other:'))
    const both = [a.secret.publicKey, renamed.publicKey, b.secret.publicKey]
    const info = signed(a.secret, a.secret, renamed)
    expect(findSigners(info, both)).toHaveLength(1)
    expect(() => verifyPathInfo(info, { keys: both, threshold: 2 })).toThrow(
      expect.objectContaining({ code: 'SIGNATURE_MISSING' }),
    )
  })

  test('two keys of one name are two keys', () => {
    const second = newKey('a')
    const info = signed(a.secret, second.secret)
    expect(findSigners(info, [a.secret.publicKey, second.secret.publicKey])).toHaveLength(2)
  })

  test("another's key under a trusted name counts for nothing", () => {
    expect(findSigners(signed(newKey('a').secret), keys)).toEqual([])
  })

  test('a signature that does not parse counts for nothing', () => {
    const good = signPathInfo(info, a.secret)
    for (const bad of ['', ':', 'a', 'a:', good.slice(0, -1), `${good}\n`, ` ${good}`])
      expect(findSigners({ ...info, signatures: [bad] }, keys)).toEqual([])
  })

  test('a threshold that cannot be met, or demands nothing, is a mistake of the caller', () => {
    const same = parseCachePublicKey(formatCachePublicKey(a.secret.publicKey).replace('a:', 'x:'))
    for (const [trusted, threshold] of [
      [keys, 0],
      [keys, 4],
      [keys, 1.5],
      [[], 1],
      [[a.secret.publicKey, same], 2],
    ] as const)
      expect(() => verifyPathInfo(signed(a.secret), { keys: trusted, threshold })).toThrow(
        TypeError,
      )
  })
})

describe('a content address', () => {
  const narHash = info.narHash
  const path = makeStorePath(`source:${glibc}`, narHashDigest(narHash), 'src')
  const source: PathInfo = {
    path,
    narHash,
    narSize: 1,
    references: [glibc],
    ca: `fixed:r:sha256:${NIX32}`,
  }

  test('vouches for a path that is computed from it, without a signature', () => {
    expect(namesItsContent(source)).toBe(true)
    expect(verifyPathInfo(source, { keys: [a.secret.publicKey] })).toEqual({
      by: 'content-address',
    })
  })

  test.each([
    ['another path', { ...source, path: hello }],
    ['another NAR hash', { ...source, narHash: narHashFromDigest(Buffer.alloc(32)) }],
    ['other references', { ...source, references: [] }],
    ['a reference to itself', { ...source, references: [glibc, path] }],
    ['another kind', { ...source, ca: source.ca?.replace('r:', '') ?? '' }],
    ['a text', { ...source, ca: source.ca?.replace('fixed:r:', 'text:') ?? '' }],
    ['not a hash', { ...source, ca: 'fixed:r:sha256:x' }],
  ])('does not vouch for %s', (_, other) => {
    expect(namesItsContent(other)).toBe(false)
  })
})

describe('keys', () => {
  test('the public key of cache.nixos.org is read, and written as it was', () => {
    const text = 'cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY='
    expect(parseCachePublicKey(text).name).toBe('cache.nixos.org-1')
    expect(formatCachePublicKey(parseCachePublicKey(text))).toBe(text)
  })

  const good = formatCachePublicKey(a.secret.publicKey)
  test.each([
    ['nothing', ''],
    ['no colon', good.slice(2)],
    ['no name', good.slice(1)],
    ['a name with a space', `x ${good}`],
    ['a name with a control byte', `\t${good}`],
    ['a name of 257 bytes', `${'x'.repeat(256)}${good}`],
    ['31 bytes', `a:${Buffer.alloc(31).toString('base64')}`],
    ['a secret key', a.text],
    ['no padding', good.replace('=', '')],
    ['stray bits', good.replace(/.=$/, '_=')],
    ['a line feed', `${good}\n`],
  ])('a public key with %s is SIGNATURE_KEY', (_, text) => {
    expect(() => parseCachePublicKey(text)).toThrow(
      expect.objectContaining({ code: 'SIGNATURE_KEY' }),
    )
  })

  test('a secret key whose public half is another is refused: signing would give it away', () => {
    const mixed = Buffer.concat([
      Buffer.from(a.text.slice(2), 'base64').subarray(0, 32),
      b.secret.publicKey.bytes,
    ])
    expect(() => parseCacheSecretKey(`a:${mixed.toString('base64')}`)).toThrow(
      expect.objectContaining({ code: 'SIGNATURE_KEY' }),
    )
  })

  test('a secret key is never shown, by printing it or by refusing it', () => {
    const digits = a.text.slice(2, 30)
    expect(inspect(a.secret, { depth: 9, showHidden: true })).not.toContain(digits)
    expect(JSON.stringify(a.secret)).not.toContain(digits)
    for (let length = 0; length < a.text.length; length++) {
      try {
        parseCacheSecretKey(a.text.slice(0, length))
        expect.unreachable()
      } catch (error) {
        expect(error).toMatchObject({ code: 'SIGNATURE_KEY' })
        expect(String(error)).not.toContain(a.text.slice(2, 8))
      }
    }
  })

  test('a signature with one bit flipped, or cut off, signs nothing', () => {
    const good = Buffer.from(signPathInfo(info, a.secret))
    for (let bit = 0; bit < good.length * 8; bit++) {
      const bytes = Buffer.from(good)
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      const signatures = [bytes.toString('latin1')]
      expect(findSigners({ ...info, signatures }, [a.secret.publicKey])).toEqual([])
    }
    for (let length = 0; length < good.length; length++)
      expect(() => parseCacheSignature(good.toString('latin1', 0, length))).toThrow(
        expect.objectContaining({ code: 'SIGNATURE_FORMAT' }),
      )
  })
})
