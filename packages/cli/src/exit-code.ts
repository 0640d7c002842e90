// What the process returns for an error: 1 where something was refused or did not match, 3 where we could
// not find out. A caller retries a 3 and never a 1, so the line is drawn code by code.
import { ApiError, type ApiErrorCode } from '@bagcheck/api'
import { AttestError } from '@bagcheck/attest'
import { LogError } from '@bagcheck/log'
import { NixError, type NixErrorCode } from '@bagcheck/nix'
import { PolicyError } from '@bagcheck/policy'
import { CliError, EXIT, type ExitCode } from './error.ts'

/** Between us and the broker. What the broker itself said is judged by its status. */
const BY_API_CODE: Readonly<Record<Exclude<ApiErrorCode, 'BROKER_REFUSED'>, ExitCode>> = {
  BROKER_UNREACHABLE: EXIT.failed,
  BROKER_TIMEOUT: EXIT.failed,
  RESPONSE_LIMIT: EXIT.failed,
  RESPONSE_INVALID: EXIT.failed,
}

/** Codes of a store, daemon or database that could not be read; every other one is about what was read. */
const NIX_UNREADABLE: ReadonlySet<NixErrorCode> = new Set<NixErrorCode>([
  'CACHE_RESPONSE',
  'CACHE_TIMEOUT',
  'CACHE_UNREACHABLE',
  'DAEMON_UNREACHABLE',
  'DAEMON_PROTOCOL',
  'DAEMON_LIMIT',
  'DAEMON_ERROR',
  'DAEMON_TIMEOUT',
  'DAEMON_CLOSED',
  'DATABASE_OPEN',
  'DATABASE_ROW',
  'DRV_READ',
  'LEDGER_OPEN',
  'LEDGER_WRITE',
  'STORE_CHANGED',
  'STORE_MISSING',
  'STORE_READ',
])

/** Whether an answer with this status means that the other side could not now (429), rather than would not. */
export function couldNot(status: number): boolean {
  return status >= 500 || status === 429
}

/** The exit code for anything that a command throws. What nobody gave a code is "could not run". */
export function exitCodeOf(error: unknown): ExitCode {
  if (error instanceof CliError) return error.exit
  if (error instanceof ApiError) {
    if (error.code !== 'BROKER_REFUSED') return BY_API_CODE[error.code]
    return couldNot(error.status ?? 0) ? EXIT.failed : EXIT.refused
  }
  if (error instanceof NixError) return NIX_UNREADABLE.has(error.code) ? EXIT.failed : EXIT.refused
  // These three read documents and nothing else: whatever they throw is about the document.
  const aboutDocument =
    error instanceof LogError || error instanceof AttestError || error instanceof PolicyError
  return aboutDocument ? EXIT.refused : EXIT.failed
}
