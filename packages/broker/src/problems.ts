// THE table: what a code means over HTTP. Nothing else decides a status or an OAuth error. `text` is
// what a stranger may read; where it is null the error's own message is shown, which then is about what
// the client itself sent.
import type { Problem, Reason } from '@bagcheck/api'
import { AttestError } from '@bagcheck/attest'
import { LogError } from '@bagcheck/log'
import { NixError } from '@bagcheck/nix'
import { DENIAL_CODES, PolicyError } from '@bagcheck/policy'
import { BrokerError, type BrokerErrorCode } from './error.ts'

/** RFC 6749 §5.2, RFC 8693 §2.2.2, RFC 9449; `server_error` and others of §4.1.2.1. */
export type OAuthError =
  | 'invalid_request'
  | 'invalid_client'
  | 'invalid_grant'
  | 'invalid_target'
  | 'unsupported_grant_type'
  | 'access_denied'
  | 'temporarily_unavailable'
  | 'server_error'
  | 'not_found'

interface Row {
  readonly status: number
  readonly error: OAuthError
  readonly text: string | null
}

const row = (status: number, error: OAuthError, text: string | null = null): Row => ({
  status,
  error,
  text,
})
const start: Row = row(500, 'server_error', 'The broker is not configured properly.')
const busy = (text: string): Row => row(503, 'temporarily_unavailable', text)
const grant: Row = row(400, 'invalid_grant')

export const PROBLEM_TABLE: Readonly<Record<BrokerErrorCode, Row>> = {
  CONFIG_FILE: start,
  CONFIG_INVALID: start,
  CONFIG_TLS_REQUIRED: start,
  CONFIG_KEY_ROLE: start,
  KEY_FILE_MODE: start,
  KEY_FILE_OWNER: start,
  KEY_FILE_INVALID: start,
  STATE_DIR: start,
  SOCKET_IN_USE: start,

  REQUEST_NOT_FOUND: row(404, 'not_found'),
  REQUEST_CONTENT_TYPE: row(415, 'invalid_request'),
  REQUEST_TOO_LARGE: row(413, 'invalid_request'),
  REQUEST_INVALID: row(400, 'invalid_request'),
  REQUEST_GRANT_TYPE: row(400, 'unsupported_grant_type'),
  REQUEST_TOKEN_TYPE: row(400, 'invalid_request'),
  REQUEST_TARGET: row(400, 'invalid_target'),
  NOT_FOUND: row(404, 'not_found'),
  OVERLOADED: busy('The broker is busy; try again.'),

  EVIDENCE_TOO_LARGE: row(413, 'invalid_request'),
  EVIDENCE_MALFORMED: grant,
  EVIDENCE_HEADER: grant,
  NONCE_INVALID: grant,
  NONCE_EXPIRED: grant,
  NONCE_REUSED: grant,
  NODE_UNKNOWN: row(401, 'invalid_client'),
  NODE_BANNED: row(401, 'invalid_client'),
  NODE_EXPIRED: row(401, 'invalid_client'),
  EVIDENCE_KEY: row(401, 'invalid_client'),
  EVIDENCE_SIGNATURE: row(401, 'invalid_client'),
  EVIDENCE_SCHEMA: grant,
  EVIDENCE_ISSUER: grant,
  EVIDENCE_INSTALLATION: grant,
  EVIDENCE_TRUST_ROOT: grant,
  EVIDENCE_TIME: grant,
  EVIDENCE_AUDIENCE: row(400, 'invalid_target'),
  EVIDENCE_PURPOSE: grant,
  COUNTER_REUSED: grant,
  EVIDENCE_WORKLOAD_KEY: grant,
  NODE_KEY_CLONED: row(401, 'invalid_client'),

  OBSERVATION_UNWANTED: row(403, 'access_denied'),
  OBSERVATION_LIMIT: row(429, 'temporarily_unavailable'),

  POLICY_MISSING: busy('No policy is installed yet.'),
  POLICY_CHANGED: busy('The policy changed while this was decided; try again.'),
  POLICY_VERSION: row(409, 'invalid_request'),
  ATTESTATION_SIGNER_UNKNOWN: row(409, 'invalid_request'),
  ENROL_PROOF: row(400, 'invalid_request'),
  NODE_KEY_KNOWN: row(409, 'invalid_request'),
  JOIN_TOKEN_USED: row(409, 'invalid_grant'),

  SVID_KEY: row(400, 'invalid_request'),
  AUTHORITY_MISSING: busy('No authority is ready to sign; try again.'),
  AUTHORITY_CHANGED: busy('The authority that signs changed while this was decided; try again.'),
  AUTHORITY_UNKNOWN: row(404, 'not_found'),
  AUTHORITY_STATE: row(409, 'invalid_request'),
  BUNDLE_FILE: start,

  CLOCK_STEPPED_BACK: busy(
    "The broker's clock went back; nothing is issued until it has caught up.",
  ),
  DECISION_INCOMPLETE: row(500, 'server_error', 'The decision could not be completed.'),
  INTERNAL: row(500, 'server_error', 'The broker failed; its log says why.'),

  STORE_CONFLICT: row(409, 'invalid_request', 'This is known already, with other content.'),
  STORE_OVERLOADED: busy('The broker is busy; try again.'),
  STORE_SCHEMA: start,
  STORE_UNAVAILABLE: busy('The store is not available.'),
  STORE_FULL: busy('The store has no space left.'),
  STORE_TIMEOUT: busy('The store did not answer in time.'),
  LOG_RANGE: row(404, 'not_found'),
  LOG_CORRUPT: row(500, 'server_error', 'The log does not verify.'),
}

/** Status of a denial by policy, whatever its code. */
export const DENIED: Row = row(403, 'access_denied')

/** An HTTP answer. */
export interface ProblemAnswer {
  readonly status: number
  readonly body: Problem
}

/** The answer to an error. Errors of other packages are about the documents that the client sent. */
export function problemOf(error: unknown): ProblemAnswer {
  if (error instanceof BrokerError) return answer(error.code, PROBLEM_TABLE[error.code], error)
  if (
    error instanceof AttestError ||
    error instanceof PolicyError ||
    error instanceof NixError ||
    error instanceof LogError
  )
    return answer(error.code, PROBLEM_TABLE.REQUEST_INVALID, error)
  return answer('INTERNAL', PROBLEM_TABLE.INTERNAL, null)
}

/** The answer to a logged denial or refusal. */
export function denialOf(denial: {
  id: string
  logIndex: number
  reasons: readonly Reason[]
}): ProblemAnswer {
  const [first] = denial.reasons
  const code = first?.code ?? 'INTERNAL'
  const { status, error } = (PROBLEM_TABLE as Readonly<Record<string, Row>>)[code] ?? DENIED
  const isDenial = (DENIAL_CODES as readonly string[]).includes(code)
  return {
    status: isDenial ? DENIED.status : status,
    body: {
      error: isDenial ? DENIED.error : error,
      error_description: first?.message ?? 'denied',
      code,
      reasons: [...denial.reasons],
      decision: denial.id,
      log_index: denial.logIndex,
    },
  }
}

function answer(code: string, { status, error, text }: Row, cause: Error | null): ProblemAnswer {
  const description = text ?? cause?.message ?? 'refused'
  return { status, body: { error, error_description: description, code } }
}
