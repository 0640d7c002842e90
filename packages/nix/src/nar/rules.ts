// The rules of an archive that its reader and its writer share.
import { quote } from '../error.ts'
import type { NixErrorCode } from '../error.ts'

/** Objects lie at most this deep; the root has depth 0. As in Nix since 2026. */
export const NAR_MAX_DEPTH = 64
export const MAX_NAME_BYTES = 255
export const MAX_TARGET_BYTES = 4095

/** A rule that does not hold. */
export interface Breach {
  readonly code: NixErrorCode
  readonly message: string
}

/** Names are file names, and increase strictly in byte order: so there is one archive for a tree. */
export function findNameBreach(name: Buffer, previous: Buffer | undefined): Breach | undefined {
  const text = name.toString('latin1')
  if (
    name.length > MAX_NAME_BYTES ||
    text === '' ||
    text === '.' ||
    text === '..' ||
    /[/\0]/.test(text)
  )
    return { code: 'NAR_NAME', message: `expected a file name, got ${quote(text)}` }
  if (previous !== undefined && Buffer.compare(previous, name) >= 0) {
    const before = quote(previous.toString('latin1'))
    return { code: 'NAR_ORDER', message: `expected a name after ${before}, got ${quote(text)}` }
  }
  return undefined
}

/** A target is what a symlink can hold on Linux. */
export function findTargetBreach(target: Buffer): Breach | undefined {
  if (target.length > 0 && target.length <= MAX_TARGET_BYTES && !target.includes(0))
    return undefined
  const message = `expected a symlink target of 1 to ${MAX_TARGET_BYTES} bytes without NUL`
  return { code: 'NAR_TARGET', message }
}
