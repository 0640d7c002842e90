// Where benchmarks keep what they make: in the scratch directory of the private root, which goes with it however
// that ends.
import { chmodSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { PRIVATE_ROOT_VARIABLE } from '@bagcheck/cli'

/** A new directory on a disk, below which every user can reach what everybody may. */
export function makeScratch(): string {
  const parent = process.env[PRIVATE_ROOT_VARIABLE]
  if (parent !== undefined) chmodSync(parent, 0o711)
  const directory = mkdtempSync(join(parent ?? tmpdir(), 'bench-'))
  chmodSync(directory, 0o711)
  return directory
}
