// JSON lines on standard error. What could be a token, a nonce, a proof or a key is cut out by name; on
// top of that nothing of the kind is ever passed here, which a test checks over whole runs.
import { pino, type Logger } from 'pino'

const SECRET_NAMES = [
  'access_token',
  'accessToken',
  'authorization',
  'evidence',
  'joinToken',
  'nonce',
  'proof',
  'subject_token',
  'token',
]

/** What the broker logs with. */
export type BrokerLogger = Pick<Logger, 'info' | 'warn' | 'error'>

/** Opens the logger of the process. */
export function openLogger(): BrokerLogger {
  const options = {
    base: null,
    timestamp: () => `,"time":"${new Date().toISOString()}"`,
    formatters: { level: (label: string) => ({ level: label }) },
    redact: { paths: SECRET_NAMES.flatMap((name) => [name, `*.${name}`]), censor: '[redacted]' },
    serializers: { err: errorForLog },
  }
  return pino(options, pino.destination({ dest: 2, sync: true }))
}

/** An error as it is logged: codes and causes, no stack of expected ones. */
export function errorForLog(error: unknown, depth = 0): Record<string, unknown> {
  if (!(error instanceof Error)) return { message: String(error) }
  const { code, detail } = error as { code?: unknown; detail?: unknown }
  return {
    name: error.name,
    ...(code !== undefined && { code }),
    message: error.message.slice(0, 1000),
    ...(detail !== undefined && { detail }),
    ...(code === undefined && { stack: error.stack }),
    ...(error.cause !== undefined && depth < 4 && { cause: errorForLog(error.cause, depth + 1) }),
  }
}
