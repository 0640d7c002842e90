/** Every code a {@link BrokerError} can carry. Stable: `docs/errors.md` has a paragraph for each. */
export const BROKER_ERROR_CODES = [
  // The store refuses: an expected outcome of a race or an attack.
  'POLICY_CHANGED',
  'POLICY_VERSION',
  'NODE_UNKNOWN',
  'NODE_EXPIRED',
  'NODE_BANNED',
  'NONCE_REUSED',
  'COUNTER_REUSED',
  'JOIN_TOKEN_USED',
  // The store cannot.
  'STORE_CONFLICT',
  'STORE_UNAVAILABLE',
  'STORE_FULL',
  'STORE_TIMEOUT',
  'STORE_OVERLOADED',
  'STORE_SCHEMA',
  'LOG_CORRUPT',
  'LOG_RANGE',
] as const

/** One of {@link BROKER_ERROR_CODES}. */
export type BrokerErrorCode = (typeof BROKER_ERROR_CODES)[number]

/** Thrown by the broker for everything that is not a caller's bug. */
export class BrokerError extends Error {
  override readonly name = 'BrokerError'
  readonly code: BrokerErrorCode
  readonly detail: Readonly<Record<string, unknown>> | undefined

  constructor(
    code: BrokerErrorCode,
    message: string,
    options: ErrorOptions & { detail?: Readonly<Record<string, unknown>> | undefined } = {},
  ) {
    super(message, options)
    this.code = code
    this.detail = options.detail
  }
}
