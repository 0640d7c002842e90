// What can go wrong between a client and the broker. A refusal by the broker carries its own code in
// `problem`; these codes say how far the request came.
import type { Problem } from './wire.ts'

/** Every code of {@link ApiError}. */
export const API_ERROR_CODES = [
  'BROKER_UNREACHABLE',
  'BROKER_TIMEOUT',
  'BROKER_REFUSED',
  'RESPONSE_LIMIT',
  'RESPONSE_INVALID',
] as const
export type ApiErrorCode = (typeof API_ERROR_CODES)[number]

/** Thrown by the client. `problem` and `status` are set for BROKER_REFUSED. */
export class ApiError extends Error {
  override readonly name = 'ApiError'
  readonly code: ApiErrorCode
  readonly status: number | null
  readonly problem: Problem | null

  constructor(
    code: ApiErrorCode,
    message: string,
    options?: ErrorOptions & { status?: number; problem?: Problem },
  ) {
    super(message, options)
    this.code = code
    this.status = options?.status ?? null
    this.problem = options?.problem ?? null
  }
}
