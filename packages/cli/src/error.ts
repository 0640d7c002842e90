// Errors of the command line. Commands throw these, or coded errors of the packages below; main.ts
// prints them and chooses the exit code.

/** Every code that this package throws. */
export const CLI_ERROR_CODES = [
  'AGENT_UNREACHABLE',
  'BROKER_UNREACHABLE',
  'CGROUP_UNAVAILABLE',
  'COMMAND_NOT_STARTED',
  'DEMO_STEP',
  'EVIDENCE_BUNDLE',
  'FILE_EXISTS',
  'FILE_UNREADABLE',
  'FILE_UNWRITABLE',
  'NIX_BUILD',
  'NIX_DAEMON',
  'NOT_FOUND',
  'NOT_ROOT',
  'POLICY_SOURCE',
  'REFUSED',
  'ROLLBACK_FLAPPING',
  'ROLLBACK_LIMIT',
  'ROLLBACK_NONE',
  'ROLLBACK_NOT_NEEDED',
  'ROLLBACK_PROFILE',
  'TOOL_MISSING',
  'TOOL_UNSUITABLE',
  'UNIT_RUNNING',
  'USAGE',
] as const

export type CliErrorCode = (typeof CLI_ERROR_CODES)[number]

/** What the process says to its caller (sysexits are for mail; four codes are enough). */
export const EXIT = { ok: 0, refused: 1, usage: 2, failed: 3 } as const
export type ExitCode = (typeof EXIT)[keyof typeof EXIT]

/** Thrown by commands. `exit` is what the process returns: 3 (could not run) where not said otherwise. */
export class CliError extends Error {
  override readonly name = 'CliError'
  readonly code: CliErrorCode
  readonly exit: ExitCode
  readonly detail: unknown

  constructor(
    code: CliErrorCode,
    message: string,
    options?: ErrorOptions & { exit?: ExitCode; detail?: unknown },
  ) {
    super(message, options)
    this.code = code
    this.exit = options?.exit ?? (code === 'USAGE' ? EXIT.usage : EXIT.failed)
    this.detail = options?.detail
  }
}
