/** Every code a {@link NixError} can carry. Stable: `docs/errors.md` explains each. */
export const NIX_ERROR_CODES = [
  'STORE_PATH',
  'NIX32',
  'HASH',
  'CONTENT_ADDRESS',
  'NAR_TRUNCATED',
  'NAR_TOKEN',
  'NAR_PADDING',
  'NAR_NAME',
  'NAR_ORDER',
  'NAR_TARGET',
  'NAR_LIMIT',
  'NAR_SIZE',
  'NAR_TRAILING',
  'LISTING_ENTRY',
  'LISTING_LIMIT',
  'SIGNATURE_KEY',
  'SIGNATURE_FORMAT',
  'SIGNATURE_MISSING',
  'NAR_INFO_LINE',
  'NAR_INFO_KEY',
  'NAR_INFO_VALUE',
  'NAR_INFO_PATH',
  'NAR_INFO_LIMIT',
  'CACHE_INFO',
  'CACHE_UNREACHABLE',
  'CACHE_RESPONSE',
  'CACHE_TIMEOUT',
  'CACHE_LIMIT',
  'COMPRESSION_UNSUPPORTED',
  'COMPRESSION_DATA',
  'COMPRESSION_SIZE',
  'PATH_INFO_ENTRY',
  'REGISTRATION_LINE',
  'REGISTRATION_LIMIT',
  'MANIFEST_LINE',
  'MANIFEST_ORDER',
  'MANIFEST_REFERENCE',
  'MANIFEST_ROOT',
  'MANIFEST_LIMIT',
  'FILE_LIST_LINE',
  'FILE_LIST_ORDER',
  'FILE_LIST_LIMIT',
  'DAEMON_UNREACHABLE',
  'DAEMON_PROTOCOL',
  'DAEMON_LIMIT',
  'DAEMON_ERROR',
  'DAEMON_TIMEOUT',
  'DAEMON_CLOSED',
  'DATABASE_OPEN',
  'DATABASE_ROW',
  'PATH_INVALID',
  'STORE_MISSING',
  'STORE_TYPE',
  'STORE_CHANGED',
  'STORE_READ',
  'CONTENT_MISMATCH',
  'LEDGER_OPEN',
  'DRV_CYCLE',
  'DRV_DYNAMIC',
  'DRV_ENVIRONMENT',
  'DRV_INPUT',
  'DRV_JSON',
  'DRV_LIMIT',
  'DRV_ORDER',
  'DRV_OUTPUT',
  'DRV_OUTPUT_PATH',
  'DRV_PATH',
  'DRV_READ',
  'DRV_SYNTAX',
  'DRV_TRUNCATED',
  'DRV_VERSION',
  'JSON_SYNTAX',
  'JSON_DUPLICATE_KEY',
  'JSON_LIMIT',
  'FLAKE_LOCK_VERSION',
  'FLAKE_LOCK_NODE',
  'FLAKE_LOCK_INPUT',
  'FLAKE_LOCK_CYCLE',
  'FLAKE_LOCK_LIMIT',
  'BOOTSPEC',
  'SYSTEM_LINK',
  'LEDGER_WRITE',
] as const

/** One of {@link NIX_ERROR_CODES}. */
export type NixErrorCode = (typeof NIX_ERROR_CODES)[number]

/** What a {@link NixError} may carry beside its message. */
export interface NixErrorOptions extends ErrorOptions {
  /** Facts for machines, such as `{ path }` or `{ line }`. Never a secret. */
  readonly detail?: Readonly<Record<string, string | number>>
}

/** Thrown for any input or store that is not exactly what it must be. */
export class NixError extends Error {
  override readonly name = 'NixError'
  readonly code: NixErrorCode
  readonly detail: Readonly<Record<string, string | number>>

  constructor(code: NixErrorCode, message: string, options: NixErrorOptions = {}) {
    super(message, options)
    this.code = code
    this.detail = options.detail ?? {}
  }
}

const CLIP = 120

/** What was seen, as it appears in messages: JSON-quoted, and clipped because a sender chose it. */
export function quote(seen: string): string {
  return JSON.stringify(seen.length > CLIP ? `${seen.slice(0, CLIP)}…` : seen)
}
