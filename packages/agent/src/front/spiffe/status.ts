// What a gRPC client hears at the end of a call. Clients act on the number: InvalidArgument, Canceled and
// Unimplemented end a watch for good, all else is tried again. So what depends on the unit, the policy or
// the moment is PermissionDenied or Unavailable, whatever its own code is, and never one of those three.
import { AgentError } from '../../error.ts'
import { refusalOf, type Refusal } from '../problem.ts'

/** Numbers of the statuses that are used. */
export const STATUS = {
  ok: 0,
  invalidArgument: 3,
  permissionDenied: 7,
  resourceExhausted: 8,
  unimplemented: 12,
  unavailable: 14,
} as const

/** How a call ends. */
export interface Status {
  readonly code: (typeof STATUS)[keyof typeof STATUS]
  readonly message: string
}

export const OK: Status = { code: STATUS.ok, message: '' }

/** Thrown for a status that no other error stands for. */
export class StatusError extends Error {
  override readonly name = 'StatusError'
  readonly status: Status

  constructor(code: Status['code'], message: string) {
    super(message)
    this.status = { code, message }
  }
}

/** How a call ends that met `error`. */
export function statusOf(error: unknown): Status {
  if (error instanceof StatusError) return error.status
  if (error instanceof AgentError && error.code === 'REQUEST_INVALID')
    return { code: STATUS.invalidArgument, message: error.message }
  return statusOfRefusal(refusalOf(error))
}

/** How a call ends that was refused: denied, unless the same may succeed later. */
export function statusOfRefusal({ status, problem }: Refusal): Status {
  const later = status >= 500 || status === 429 || status === 409
  return {
    code: later ? STATUS.unavailable : STATUS.permissionDenied,
    message: `${problem.code}: ${problem.error_description}`,
  }
}

/** `grpc-message`: percent-encoded, everything but printable ASCII and `%`. */
export function encodeMessage(text: string): string {
  const clipped = text.length <= 1024 ? text : `${text.slice(0, 1024)}…`
  const encoded = [...Buffer.from(clipped)].map((byte) =>
    byte >= 0x20 && byte <= 0x7e && byte !== 0x25
      ? String.fromCharCode(byte)
      : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`,
  )
  return encoded.join('')
}
