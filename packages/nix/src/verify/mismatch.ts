import type { StorePath } from '../store-path.ts'

/** One way in which the store is not what the manifest says. */
export interface Mismatch {
  readonly path: StorePath
  /** Absolute; absent when only the store path as a whole is known to differ. */
  readonly file?: string
  readonly kind:
    | 'content'
    | 'missing'
    | 'unexpected'
    | 'type'
    | 'executable'
    | 'symlink'
    | 'size'
    | 'nar'
    | 'mode'
    | 'owner'
    | 'attribute'
  /** For people. */
  readonly expected: string
  /** For people. */
  readonly seen: string
}
