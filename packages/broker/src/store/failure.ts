import { LogError } from '@bagcheck/log'
import { BrokerError, type BrokerErrorCode } from '../error.ts'

// Primary result codes of SQLite, and the extended one for a full disk under the shared memory file.
const sqliteCodes: Readonly<Record<number, BrokerErrorCode>> = {
  5: 'STORE_TIMEOUT', // BUSY
  6: 'STORE_TIMEOUT', // LOCKED
  11: 'LOG_CORRUPT', // CORRUPT
  13: 'STORE_FULL', // FULL
  19: 'STORE_CONFLICT', // CONSTRAINT
  26: 'LOG_CORRUPT', // NOTADB
}
const SQLITE_IOERR_SHMSIZE = 4874

// SQLSTATE, whole or by class.
const postgresCodes: Readonly<Record<string, BrokerErrorCode>> = {
  '53100': 'STORE_FULL', // disk_full
  '55P03': 'STORE_TIMEOUT', // lock_not_available
  '57014': 'STORE_TIMEOUT', // query_canceled, by statement_timeout
  '25P03': 'STORE_TIMEOUT', // idle_in_transaction_session_timeout
  '22': 'STORE_CONFLICT', // data exception
  '23': 'STORE_CONFLICT', // integrity constraint violation
  XX: 'LOG_CORRUPT', // data_corrupted, index_corrupted, internal_error
}

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
  if ('errcode' in cause && typeof cause.errcode === 'number') {
    if (cause.errcode === SQLITE_IOERR_SHMSIZE) return 'STORE_FULL'
    return sqliteCodes[cause.errcode & 0xff] ?? 'STORE_UNAVAILABLE'
  }
  if ('code' in cause && typeof cause.code === 'string' && /^[0-9A-Z]{5}$/.test(cause.code))
    return postgresCodes[cause.code] ?? postgresCodes[cause.code.slice(0, 2)] ?? 'STORE_UNAVAILABLE'
  // pg has no code for the bound that it keeps itself.
  return cause.message === 'Query read timeout' ? 'STORE_TIMEOUT' : 'STORE_UNAVAILABLE'
}
