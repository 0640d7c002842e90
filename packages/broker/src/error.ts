/** Every code a {@link BrokerError} can carry. Stable: `docs/errors.md` has a paragraph for each. */
export const BROKER_ERROR_CODES = [
  // Configuration and start.
  'CONFIG_FILE',
  'CONFIG_INVALID',
  'CONFIG_TLS_REQUIRED',
  'CONFIG_KEY_ROLE',
  'KEY_FILE_MODE',
  'KEY_FILE_OWNER',
  'KEY_FILE_INVALID',
  'STATE_DIR',
  'SOCKET_IN_USE',
  // The request as HTTP.
  'REQUEST_NOT_FOUND',
  'REQUEST_CONTENT_TYPE',
  'REQUEST_TOO_LARGE',
  'REQUEST_INVALID',
  'REQUEST_GRANT_TYPE',
  'REQUEST_TOKEN_TYPE',
  'REQUEST_TARGET',
  'NOT_FOUND',
  'OVERLOADED',
  // Evidence, in the order in which it is checked; NODE_* are below.
  'EVIDENCE_TOO_LARGE',
  'EVIDENCE_MALFORMED',
  'EVIDENCE_HEADER',
  'NONCE_INVALID',
  'NONCE_EXPIRED',
  'EVIDENCE_KEY',
  'EVIDENCE_SIGNATURE',
  'EVIDENCE_SCHEMA',
  'EVIDENCE_ISSUER',
  'EVIDENCE_INSTALLATION',
  'EVIDENCE_TRUST_ROOT',
  'EVIDENCE_TIME',
  'EVIDENCE_AUDIENCE',
  'EVIDENCE_PURPOSE',
  'EVIDENCE_WORKLOAD_KEY',
  'NODE_KEY_CLONED',
  // Observation.
  'OBSERVATION_UNWANTED',
  'OBSERVATION_LIMIT',
  // SVIDs and the authorities that sign them.
  'SVID_KEY',
  'AUTHORITY_MISSING',
  'BUNDLE_FILE',
  // Policy, attestations, enrolment.
  'POLICY_MISSING',
  'ATTESTATION_SIGNER_UNKNOWN',
  'ENROL_PROOF',
  'NODE_KEY_KNOWN',
  // The broker itself.
  'CLOCK_STEPPED_BACK',
  'DECISION_INCOMPLETE',
  'INTERNAL',
  // The store refuses: an expected outcome of a race or an attack.
  'POLICY_CHANGED',
  'POLICY_VERSION',
  'NODE_UNKNOWN',
  'NODE_EXPIRED',
  'NODE_BANNED',
  'NONCE_REUSED',
  'COUNTER_REUSED',
  'JOIN_TOKEN_USED',
  'AUTHORITY_UNKNOWN',
  'AUTHORITY_STATE',
  'AUTHORITY_CHANGED',
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

const MAX_QUOTED = 120

/** `value` as JSON for a message, clipped: what was seen may be hostile and long. */
export function quote(value: unknown): string {
  const text = JSON.stringify(typeof value === 'string' ? value.slice(0, MAX_QUOTED) : value)
  return text === undefined ? typeof value : text.slice(0, MAX_QUOTED + 2)
}
