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

/** What a log line may say of an error: code and message, causes flattened. */
export function describe(error: unknown): { code: string; error: string } {
  const code = (error as { code?: unknown } | null)?.code
  return {
    code: typeof code === 'string' ? code : 'INTERNAL',
    error: error instanceof Error ? error.message : String(error),
  }
}
