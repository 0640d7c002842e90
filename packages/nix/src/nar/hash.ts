import { createHash } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import { encodeFileName } from '../file-name.ts'
import { narHashFromDigest } from '../hash.ts'
import type { NarHash } from '../hash.ts'
import { dumpNar } from './dump.ts'

/** What identifies the content of a store path. */
export interface NarFacts {
  readonly narHash: NarHash
  /** Size of the archive in bytes. */
  readonly narSize: number
}

/**
 * The hash and size of the NAR of the tree at `path`, as `nix-store --dump | sha256sum` gives them.
 * Other work goes on between pieces of 1 MiB.
 *
 * @throws {NixError} STORE_MISSING, STORE_TYPE, STORE_CHANGED, STORE_READ
 */
export async function hashNar(
  path: string,
  options: { readonly signal?: AbortSignal } = {},
): Promise<NarFacts> {
  const hash = createHash('sha256')
  let narSize = 0
  for (const chunk of dumpNar(encodeFileName(path).toString('latin1'))) {
    hash.update(chunk)
    narSize += chunk.length
    await setImmediate()
    options.signal?.throwIfAborted()
  }
  return { narHash: narHashFromDigest(hash.digest()), narSize }
}
