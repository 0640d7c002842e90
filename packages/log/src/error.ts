/** Every code a {@link LogError} can carry. Stable: callers and `docs/errors.md` rely on them. */
export const LOG_ERROR_CODES = [
  'LOG_SIZE',
  'LOG_HASH',
  'LOG_PROOF',
  'NOTE_FORMAT',
  'NOTE_KEY',
  'NOTE_SIGNATURE',
  'CHECKPOINT_FORMAT',
  'CHECKPOINT_ORIGIN',
  'TILE_PATH',
  'TILE_FORMAT',
] as const

/** One of {@link LOG_ERROR_CODES}. */
export type LogErrorCode = (typeof LOG_ERROR_CODES)[number]

/** Thrown for a proof, note, checkpoint or tile that is malformed or does not verify. */
export class LogError extends Error {
  override readonly name = 'LogError'
  readonly code: LogErrorCode
  readonly detail: Readonly<Record<string, unknown>> | undefined

  constructor(
    code: LogErrorCode,
    message: string,
    options: ErrorOptions & { detail?: Readonly<Record<string, unknown>> } = {},
  ) {
    super(message, options)
    this.code = code
    this.detail = options.detail
  }
}

/** Hostile text for a message: quoted, and cut after 80 characters. */
export function quote(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)
}
