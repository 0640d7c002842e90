// What a caller hears when it gets no token: the shape of the broker's problems, whoever says no.
import type { Problem } from '@bagcheck/api'
import { AgentError, type AgentErrorCode } from '../error.ts'
import { BrokerProblem } from './broker-client.ts'

/** A refusal with its HTTP status. */
export interface Refusal {
  readonly status: number
  readonly problem: Problem
}

/** What was had meanwhile is void: the same bag was denied. */
export class DeniedElsewhere extends Error {
  override readonly name = 'DeniedElsewhere'
  readonly refusal: Refusal

  constructor(refusal: Refusal) {
    super(refusal.problem.error_description)
    this.refusal = refusal
  }
}

/** Codes that are not about the unit: the same request may succeed later. */
const TRANSIENT: readonly AgentErrorCode[] = [
  'BROKER_UNREACHABLE',
  'BROKER_TIMEOUT',
  'BROKER_RESPONSE',
  'MEASURER_BUSY',
  'MEASURER_UNREACHABLE',
  'MEASUREMENT_TIMEOUT',
  'MEASUREMENT_UNSTABLE',
  'UNIT_STARTING',
]

const REQUESTS: Partial<Record<AgentErrorCode, [status: number, error: string]>> = {
  REQUEST_INVALID: [400, 'invalid_request'],
  DPOP_INVALID: [400, 'invalid_dpop_proof'],
  REQUEST_LIMIT: [429, 'temporarily_unavailable'],
}

/** Turns whatever was thrown into a refusal. An error without a code tells its caller nothing. */
export function refusalOf(error: unknown): Refusal {
  if (error instanceof DeniedElsewhere) return error.refusal
  if (error instanceof BrokerProblem) {
    const { error: oauth, error_description, code, reasons, decision, log_index } = error.problem
    return {
      status: error.status >= 500 ? 503 : error.status,
      problem: {
        error: oauth,
        error_description,
        code,
        ...(reasons === undefined ? {} : { reasons }),
        ...(decision === undefined ? {} : { decision }),
        ...(log_index === undefined ? {} : { log_index }),
      },
    }
  }
  if (!(error instanceof AgentError))
    return {
      status: 500,
      problem: { error: 'server_error', error_description: 'the agent failed', code: 'INTERNAL' },
    }
  const { code, message } = error
  const [status, oauth] =
    REQUESTS[code] ??
    (TRANSIENT.includes(code) ? [503, 'temporarily_unavailable'] : [403, 'access_denied'])
  return { status, problem: { error: oauth, error_description: message, code } }
}

/** True if the refusal says nothing about the unit, so that a token it holds may live out its life. */
export function isTransient(error: unknown): boolean {
  if (error instanceof BrokerProblem)
    return error.status >= 500 || error.status === 429 || error.status === 409
  return error instanceof AgentError && TRANSIENT.includes(error.code)
}
