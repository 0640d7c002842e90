/** Every code that a {@link PolicyError} can carry. Codes are API: they are never renamed. */
export const POLICY_ERROR_CODES = [
  'TRUST_ROOT_FORMAT',
  'TRUST_ROOT_PIN',
  'TRUST_ROOT_CHAIN',
  'TRUST_ROOT_SIGNATURES',
  'TRUST_ROOT_EXPIRED',
  'POLICY_SOURCE',
  'POLICY_FORMAT',
  'POLICY_SIGNATURES',
  'POLICY_STATEMENT',
  'POLICY_INSTALLATION',
  'POLICY_ROLLBACK',
  'POLICY_VERSION_SKIPPED',
  'POLICY_PREVIOUS',
  'POLICY_EXPIRED',
  'POLICY_NOT_YET_VALID',
  'JOIN_TOKEN_FORMAT',
  'JOIN_TOKEN_SIGNATURE',
  'JOIN_TOKEN_INSTALLATION',
  'JOIN_TOKEN_EXPIRED',
  'JOIN_TOKEN_NOT_YET_VALID',
] as const

export type PolicyErrorCode = (typeof POLICY_ERROR_CODES)[number]

/** Thrown for documents of trust that are malformed, unsigned, out of order or out of time. */
export class PolicyError extends Error {
  override readonly name = 'PolicyError'
  readonly code: PolicyErrorCode

  constructor(code: PolicyErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

const MAX_QUOTED = 160

/**
 * `value` as JSON for a message, clipped, with what does not show or moves other text escaped: what was
 * seen may be hostile and long, and ends in somebody's terminal.
 */
export function quote(value: unknown): string {
  const text = (JSON.stringify(value) ?? 'nothing').replace(
    /[^\p{L}\p{N}\p{P}\p{S}\x20]/gu,
    (character) => character.split('').map(escapeUnit).join(''),
  )
  return text.length > MAX_QUOTED ? `${text.slice(0, MAX_QUOTED)}…` : text
}

function escapeUnit(unit: string): string {
  return `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`
}

const PLAIN = /^[\x21-\x7e]{1,300}$/

/** A name or path that somebody else chose: as it is where that is harmless, else quoted. */
export function show(name: string): string {
  return PLAIN.test(name) ? name : quote(name)
}

/** The message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
