// Which token is in which token file, written down beside the node key: an agent that starts again, for an update
// or after a crash, leaves a file alone that holds what was issued to a process which still runs. Every other file
// it removes, also one that the configuration names no more.
import { sha256Of } from './token-file.ts'
import { AgentError } from '../error.ts'
import { isRunning } from '../measure/instance.ts'
import type { ProcessInstance } from '../measure/messages.ts'
import type { TokenFile } from './token-files.ts'

const SCHEMA = 'bagcheck.token-files/v1'

/** A token that is in a file. */
export interface KeptToken {
  readonly file: TokenFile
  /** Whom it was issued to. */
  readonly instance: ProcessInstance
  /** Of the token. */
  readonly sha256: string
  /** Seconds since the epoch. */
  readonly expiresAt: number
}

/** Where they outlive the agent. */
export interface KeptTokensStore {
  /** What was saved last. */
  readonly text: string | undefined
  readonly save: (text: string) => void
  /** Processes are told apart within one boot only. */
  readonly bootId: string
}

/** What was written down in this boot. @throws {AgentError} STATE_INVALID */
export function parseKeptTokens({ text, bootId }: KeptTokensStore): readonly KeptToken[] {
  if (text === undefined) return []
  try {
    const saved = JSON.parse(text) as { schema?: unknown; bootId?: unknown; tokens?: unknown }
    if (saved.schema === SCHEMA && Array.isArray(saved.tokens))
      // Ours, 0600. Of another boot the files alone are worth knowing, because they are to go.
      return (saved.tokens as KeptToken[]).map((token) =>
        saved.bootId === bootId ? token : { ...token, expiresAt: 0 },
      )
  } catch (cause) {
    throw new AgentError('STATE_INVALID', 'expected token files as JSON', { cause })
  }
  throw new AgentError('STATE_INVALID', `expected token files of schema ${SCHEMA}`)
}

/** What {@link parseKeptTokens} reads. */
export function formatKeptTokens(bootId: string, tokens: readonly KeptToken[]): string {
  return JSON.stringify({ schema: SCHEMA, bootId, tokens })
}

/** True if `token` is what `file` is to hold, for a process that still runs, and what is there now. */
export function isKept(token: KeptToken, file: TokenFile, nowMs: number): boolean {
  return (
    JSON.stringify(token.file) === JSON.stringify(file) &&
    token.expiresAt * 1000 > nowMs &&
    isRunning(token.instance) &&
    sha256Of(file) === token.sha256
  )
}
