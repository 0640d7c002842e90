/** Every code an {@link AttestError} can carry. Codes are API: they are never renamed. */
export const ATTEST_ERROR_CODES = [
  'JSON_SYNTAX',
  'JSON_DUPLICATE_KEY',
  'JSON_VALUE',
  'JSON_LIMIT',
  'CANONICAL_JSON',
  'KEY_PEM',
  'KEY_ALGORITHM',
  'KEY_ENCODING',
  'DSSE_ENVELOPE',
  'DSSE_LIMIT',
  'DSSE_PAYLOAD_TYPE',
  'DSSE_SIGNED_TWICE',
  'SIGNATURE_INVALID',
  'THRESHOLD_NOT_MET',
  'STATEMENT_FORMAT',
  'STATEMENT_LIMIT',
  'STATEMENT_PREDICATE_TYPE',
  'BUNDLE_FORMAT',
  'BUNDLE_MEDIA_TYPE',
  'BUNDLE_MATERIAL',
  'BUNDLE_SIGNATURES',
  'ATTESTATION_SIGNER',
  'ATTESTATION_SUBJECT',
  'ATTESTATION_PREDICATE',
  'ATTESTATION_CONTENT',
  'FLAKE_LOCK',
  'JWS_FORMAT',
  'JWS_HEADER',
] as const

export type AttestErrorCode = (typeof ATTEST_ERROR_CODES)[number]

export interface AttestErrorOptions extends ErrorOptions {
  /** Structured facts for logs; never a secret. */
  detail?: Readonly<Record<string, unknown>>
}

/** Thrown for anything malformed, unsigned or contradictory in what this package reads. */
export class AttestError extends Error {
  override readonly name = 'AttestError'
  readonly code: AttestErrorCode
  readonly detail: Readonly<Record<string, unknown>> | undefined

  constructor(code: AttestErrorCode, message: string, options?: AttestErrorOptions) {
    super(message, options)
    this.code = code
    this.detail = options?.detail
  }
}

const MAX_QUOTED = 120

/** Returns `value` as JSON for an error message, clipped: what was seen may be hostile and long. */
export function quote(value: unknown): string {
  const clippedValue =
    typeof value === 'string' && value.length > MAX_QUOTED ? value.slice(0, MAX_QUOTED) : value
  const text = JSON.stringify(clippedValue) ?? typeof value
  return text.length > MAX_QUOTED || clippedValue !== value ? `${text.slice(0, MAX_QUOTED)}…` : text
}
