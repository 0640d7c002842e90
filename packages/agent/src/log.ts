// The agent's log: one JSON object a line on stderr. What may never be in it: tokens, keys, nonces, proofs.

/** Writes one line; `fields` must be safe to show to an operator. */
export type Log = (
  level: 'debug' | 'info' | 'warn' | 'error',
  msg: string,
  fields?: Readonly<Record<string, unknown>>,
) => void

/** A log that writes to `write`, a line at a time. */
export function jsonLog(write: (line: string) => void, now: () => number): Log {
  return (level, msg, fields = {}) => {
    write(`${JSON.stringify({ time: new Date(now()).toISOString(), level, msg, ...fields })}\n`)
  }
}

/** What a log line says of an error. */
export type ErrorFields = {
  readonly code: string
  readonly error: string
  /** Messages of what led to it, nearest first. */
  readonly cause?: readonly string[]
  /** Only of an error without a code, which is a mistake of ours. */
  readonly stack?: string
}

const MAX_CAUSES = 4

/** What a log line may say of an error: code, message and causes. */
export function describe(error: unknown): ErrorFields {
  const code = (error as { code?: unknown } | null)?.code
  const cause = causesOf(error)
  return {
    code: typeof code === 'string' ? code : 'INTERNAL',
    error: messageOf(error),
    ...(cause.length > 0 && { cause }),
    ...(typeof code !== 'string' && error instanceof Error && { stack: error.stack ?? '' }),
  }
}

function causesOf(error: unknown): string[] {
  const causes: string[] = []
  let cause = error instanceof Error ? error.cause : undefined
  while (cause !== undefined && causes.length < MAX_CAUSES) {
    causes.push(messageOf(cause))
    cause = cause instanceof Error ? cause.cause : undefined
  }
  return causes
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
