// Facts for tests, and any facts for property tests.
import fc from 'fast-check'
import { byteOrder, encodeNix32, narHashFromDigest, parseStorePathBase } from '@bagcheck/nix'
import type { PathInfo, StorePath } from '@bagcheck/nix'

/** A store path whose hash is made from `seed`. */
export function storePath(seed: number, name: string): StorePath {
  return parseStorePathBase(`${encodeNix32(new Uint8Array(20).fill(seed))}-${name}`)
}

/** Two paths, of which the second refers to both. */
export const glibc: PathInfo = {
  path: storePath(1, 'glibc-2.36'),
  narHash: narHashFromDigest(new Uint8Array(32).fill(1)),
  narSize: 4096,
  references: [],
  signatures: [],
}
export const hello: PathInfo = {
  path: storePath(2, 'hello-2.12'),
  narHash: narHashFromDigest(new Uint8Array(32).fill(2)),
  narSize: 226_552,
  references: [glibc.path, storePath(2, 'hello-2.12')],
  deriver: storePath(3, 'hello-2.12.drv'),
  ultimate: true,
  signatures: [`a:${'A'.repeat(86)}==`, `b:${'B'.repeat(85)}A==`],
  ca: `fixed:r:sha256:${encodeNix32(new Uint8Array(32).fill(4))}`,
}

const path = fc
  .tuple(fc.integer({ min: 0, max: 255 }), fc.stringMatching(/^[a-z0-9_+][a-zA-Z0-9.+_?=-]{0,20}$/))
  .map(([seed, name]) => storePath(seed, name))

/** Any facts that registrations can hold. */
export const anyFacts: fc.Arbitrary<PathInfo> = fc.record(
  {
    path,
    narHash: fc.uint8Array({ minLength: 32, maxLength: 32 }).map(narHashFromDigest),
    narSize: fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }),
    references: fc.uniqueArray(path, { maxLength: 4 }).map((paths) => paths.sort(byteOrder)),
    deriver: path,
  },
  { requiredKeys: ['path', 'narHash', 'narSize', 'references'] },
)

/** Such facts, each path once. */
export const factsLists: fc.Arbitrary<PathInfo[]> = fc.uniqueArray(anyFacts, {
  maxLength: 6,
  selector: (info) => info.path,
})
