/** Every code that {@link AgentError} can carry. */
export const AGENT_ERROR_CODES = [
  'CONFIG_INVALID',
  'CONFIG_TLS_REQUIRED',
  'KEY_FILE_MODE',
  'STATE_INVALID',
  'USER_UNKNOWN',
  'PRIVILEGES',
  'PROC_NOT_PROCFS',
  'PROC_FORMAT',
  'PROC_UNREADABLE',
  'PROCESS_GONE',
  'PROCESS_HIDDEN',
  'PROCESS_MOVED',
  'THREADS_DIFFER',
  'PEER_UNKNOWN',
  'UNIT_RECORD',
  'UNIT_STARTING',
  'FILE_UNREADABLE',
  'MEMORY_UNREADABLE',
  'MEASUREMENT_FAILED',
  'MEASUREMENT_LIMIT',
  'MEASUREMENT_UNSTABLE',
  'MEASUREMENT_TIMEOUT',
  'MEASURER_BUSY',
  'MEASURER_UNREACHABLE',
  'MEASURER_PROTOCOL',
  'REQUEST_INVALID',
  'REQUEST_LIMIT',
  'DPOP_INVALID',
  'NOT_ENROLLED',
  'BROKER_UNREACHABLE',
  'BROKER_TIMEOUT',
  'BROKER_RESPONSE',
  'BROKER_REFUSED',
  'TRUST_ROOT_MISMATCH',
  'POLICY_ROLLBACK',
  'MANIFEST_MISMATCH',
  'ACTION_REFUSED',
  'ACTION_LIMIT',
  'ACTION_FAILED',
  'TOKEN_FILE_PATH',
  'TOKEN_FILE_BOUND',
] as const

/** What went wrong, stable across releases. */
export type AgentErrorCode = (typeof AGENT_ERROR_CODES)[number]

/** Thrown for everything that keeps the agent from stating a fact. No fact, no evidence, no token. */
export class AgentError extends Error {
  override readonly name = 'AgentError'
  readonly code: AgentErrorCode
  readonly detail: Readonly<Record<string, unknown>> | undefined

  constructor(
    code: AgentErrorCode,
    message: string,
    options: ErrorOptions & { detail?: Readonly<Record<string, unknown>> } = {},
  ) {
    super(message, options)
    this.code = code
    this.detail = options.detail
  }
}

/** `value` as JSON, clipped, for a message that quotes what was seen. */
export function quote(value: unknown, maxLength = 120): string {
  const text = JSON.stringify(value) ?? 'undefined'
  return text.length <= maxLength ? text : `${text.slice(0, maxLength)}…`
}
