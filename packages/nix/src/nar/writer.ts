import { encodeFileName } from '../file-name.ts'
import { dumpNar } from './dump.ts'

/**
 * The NAR of the file, directory or symlink at `path`, read from disk. Permissions (but for the owner's
 * execute bit), owners and times are not part of a NAR.
 *
 * @throws {NixError} STORE_MISSING, STORE_TYPE, STORE_CHANGED, STORE_READ
 */
export async function* writeNar(path: string): AsyncGenerator<Uint8Array, void, undefined> {
  const latin1 = encodeFileName(path).toString('latin1')
  for (const chunk of dumpNar(latin1)) yield new Uint8Array(chunk) // a copy: the buffer is reused
}
