import { LogError } from '@bagcheck/log'
import { BrokerError, type BrokerErrorCode } from '../error.ts'
import { postgresCodeOf } from './postgres.ts'
import { sqliteCodeOf } from './sqlite.ts'

/** Each engine knows its own errors, and none of another's. */
const ENGINES: readonly ((cause: Error) => BrokerErrorCode | undefined)[] = [
  sqliteCodeOf,
  postgresCodeOf,
]

/** What a failure of the database is called: a {@link BrokerError} with the cause kept. */
export function storeError(cause: unknown): BrokerError {
  if (cause instanceof BrokerError) return cause
  const message = cause instanceof Error ? cause.message : String(cause)
  return new BrokerError(codeOf(cause), `the store failed: ${message}`, { cause })
}

function codeOf(cause: unknown): BrokerErrorCode {
  // A hash of a wrong length can come from nowhere but the tables.
  if (cause instanceof LogError) return 'LOG_CORRUPT'
  if (!(cause instanceof Error)) return 'STORE_UNAVAILABLE'
  for (const codeFor of ENGINES) {
    const code = codeFor(cause)
    if (code !== undefined) return code
  }
  return 'STORE_UNAVAILABLE'
}
