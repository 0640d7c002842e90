// Tokens for programs that know nothing of sockets: a file each, kept fresh for as long as the unit is what it
// should be. The agent asks in the name of the unit's main process, and that is measured like any that asks
// itself; only bearer tokens are written, because a file proves no possession.
//
//   absent ── the unit runs ──► asking ── token ──► written ── renewed ──► written …
//      ▲                           │                    │
//      └── ended, moved, expired ──┴── denied: removed ─┘      (the session goes on asking, with back-off)
//
// An agent that stops leaves what is in force, so that its restart takes nothing away; one that starts removes
// every file but those (kept-tokens.ts), and asks for these anew, at once.
import { statSync } from 'node:fs'
import { AgentError } from '../error.ts'
import { createHash } from 'node:crypto'
import { describe, type Log } from '../log.ts'
import { wantedUnit } from '../measure/find-units.ts'
import { isRunning, sameInstance } from '../measure/instance.ts'
import type { ProcessInstance } from '../measure/messages.ts'
import { closePidfd, endedProcesses, openPidfd } from '../peer.ts'
import {
  formatKeptTokens,
  isKept,
  parseKeptTokens,
  type KeptToken,
  type KeptTokensStore,
} from './kept-tokens.ts'
import type { Measurers } from './measurer-client.ts'
import type { Session, SessionEvent } from './session.ts'
import type { Sessions } from './sessions.ts'
import { removeTokenFile, writeTokenFile, type TokenFilePlace } from './token-file.ts'

/** One of `tokenFiles` in the configuration. */
export interface TokenFile extends TokenFilePlace {
  /** `orders`, a unit of `bagcheck exec`, or `orders.service`. */
  readonly unit: string
  readonly audience: string
  readonly profile: string | null
  readonly ttlSeconds: number | null
}

/** How often units are looked for, and instances looked at: how long a file outlives an exec. */
const LOOK_MS = 1000

/** What the files are kept with. */
export interface TokenFilesContext {
  readonly sessions: Pick<Sessions, 'open'>
  readonly measurer: Pick<Measurers, 'find' | 'check'>
  readonly store: KeptTokensStore
  readonly now: () => number
  readonly log: Log
}

interface Kept {
  readonly file: TokenFile
  /** Whose token it is, and what ends that. */
  holder: { readonly instance: ProcessInstance; readonly stop: () => void } | undefined
  written: boolean
  /** What is in the file, unless that is not known. */
  token: KeptToken | undefined
  /** To be removed, and perhaps not yet gone. */
  doomed: boolean
  /** Said once, not each second. */
  complaint: string | undefined
}

/** Keeps the files until it is disposed of. */
export class TokenFiles implements Disposable {
  readonly #context: TokenFilesContext
  readonly #files: readonly Kept[]
  readonly #timer: NodeJS.Timeout
  #looking = false
  #closed = false

  constructor(files: readonly TokenFile[], context: TokenFilesContext) {
    this.#context = context
    const before = parseKeptTokens(context.store)
    this.#files = files.map((file) => ({
      ...{ file, holder: undefined, complaint: undefined, token: undefined },
      written: true, // perhaps, by an agent that was killed
      doomed: true,
    }))
    for (const kept of this.#files) this.#inherit(kept, before)
    for (const { file } of before)
      if (!files.some(({ path }) => path === file.path)) this.#drop(file)
    this.#timer = setInterval(() => void this.#look(), LOOK_MS)
    this.#timer.unref()
    void this.#look()
  }

  /** Files that hold a token now. */
  get written(): number {
    return this.#files.filter(({ written }) => written).length
  }

  [Symbol.dispose](): void {
    this.#closed = true
    clearInterval(this.#timer)
    for (const kept of this.#files) {
      kept.holder?.stop()
      if (kept.doomed) this.#remove(kept)
    }
  }

  /** Leaves what an agent before this one wrote, if it is in force. */
  #inherit(kept: Kept, before: readonly KeptToken[]): void {
    try {
      kept.token = before.find((token) => isKept(token, kept.file, this.#context.now()))
    } catch (error) {
      this.#complain(kept, error)
    }
    kept.doomed = kept.token === undefined
    if (kept.doomed) this.#remove(kept)
  }

  /** Removes a file that is not configured any more. */
  #drop(file: TokenFile): void {
    try {
      removeTokenFile(file)
    } catch (error) {
      this.#context.log('warn', 'token file not removed', { path: file.path, ...describe(error) })
    }
  }

  async #look(): Promise<void> {
    if (this.#looking) return
    this.#looking = true
    for (const kept of this.#files) {
      try {
        if (kept.doomed || this.#hasEnded(kept)) this.#remove(kept)
        if (kept.holder !== undefined) await this.#check(kept)
        if (kept.holder === undefined) await this.#find(kept)
      } catch (error) {
        this.#complain(kept, error)
      }
    }
    this.#looking = false
  }

  /** The token has expired, or it was somebody's who is gone. */
  #hasEnded({ token, written }: Kept): boolean {
    if (!written || token === undefined) return false
    return token.expiresAt * 1000 <= this.#context.now() || !isRunning(token.instance)
  }

  async #check(kept: Kept): Promise<void> {
    try {
      if (kept.holder !== undefined) await this.#context.measurer.check(kept.holder.instance)
    } catch (error) {
      this.#letGo(kept)
      const gone = error instanceof AgentError && /^PROCESS_(GONE|MOVED)$/.test(error.code)
      if (!gone) throw error
    }
  }

  async #find(kept: Kept): Promise<void> {
    const { measurer } = this.#context
    const { unit, audience, profile, ttlSeconds } = kept.file
    const [instance, ...others] = await measurer.find(wantedUnit(unit))
    const holds = instance !== undefined && others.length === 0
    if (!(holds && kept.token !== undefined && sameInstance(kept.token.instance, instance)))
      this.#remove(kept)
    if (instance === undefined) return
    if (others.length > 0)
      throw new AgentError(
        'UNIT_RECORD',
        `expected one unit ${unit} for a token file, saw ${others.length + 1}`,
      )
    const session = await this.#open(instance, audience)
    if (this.#closed) return
    const unwatch = session.watch(
      (event) => this.#hear(kept, instance, event),
      () => this.#letGo(kept),
    )
    kept.holder = { instance, stop: unwatch }
    // Not waited for: a unit that takes long to measure must not keep the files of others from being looked at.
    session
      .request({ ttlSeconds, profile, workloadKey: null })
      .catch((error: unknown) => this.#complain(kept, error))
  }

  /** Pinned while it is looked at, so that the pid cannot be another's. */
  async #open(instance: ProcessInstance, audience: string): Promise<Session> {
    const { sessions, measurer } = this.#context
    const pidfd = openPidfd(instance.pid)
    try {
      await measurer.check(instance)
      const isPinned = (): boolean => endedProcesses([pidfd]).length === 0
      return sessions.open(
        { instance, isPinned, peer: { pid: instance.pid, uid: ownerOf(instance) } },
        audience,
      )
    } finally {
      closePidfd(pidfd)
    }
  }

  #hear(kept: Kept, instance: ProcessInstance, event: SessionEvent): void {
    // Of a process that this file is not for any more.
    if (kept.holder !== undefined && !sameInstance(kept.holder.instance, instance)) return
    if (event.kind === 'denied') {
      // Nobody could be asked: what an agent before this one wrote lives out its life, as what is held does.
      const { status } = event.refusal
      if (status !== 503 && status !== 429) this.#remove(kept)
      return
    }
    try {
      if (event.token.tokenType !== 'Bearer')
        throw new AgentError(
          'TOKEN_FILE_BOUND',
          `tokens for ${kept.file.audience} are bound to a key, and a file proves none`,
        )
      const { accessToken, expiresAt } = event.token
      writeTokenFile(kept.file, accessToken)
      const sha256 = createHash('sha256').update(accessToken).digest('hex')
      kept.token = { file: kept.file, instance, sha256, expiresAt }
      kept.written = true
      kept.doomed = false
      kept.complaint = undefined
    } catch (error) {
      this.#remove(kept)
      this.#complain(kept, error)
      return
    }
    this.#save(kept)
  }

  /** After the file: of one that is not written down the next agent knows nothing, and removes it. */
  #save(kept: Kept): void {
    const { store } = this.#context
    try {
      store.save(
        formatKeptTokens(
          store.bootId,
          this.#files.flatMap(({ token }) => token ?? []),
        ),
      )
    } catch (error) {
      this.#complain(kept, error)
    }
  }

  #letGo(kept: Kept): void {
    const { holder } = kept
    kept.holder = undefined
    holder?.stop()
    this.#remove(kept)
  }

  #remove(kept: Kept): void {
    const isWrittenDown = kept.token !== undefined
    kept.token = undefined
    if (!kept.written) return
    kept.doomed = true
    try {
      removeTokenFile(kept.file)
      kept.written = kept.doomed = false
    } catch (error) {
      this.#complain(kept, error) // and once more at the next look
    }
    // Also, and above all, if it is still there: the next agent is not to leave it there.
    if (isWrittenDown) this.#save(kept)
  }

  #complain(kept: Kept, error: unknown): void {
    const said = describe(error)
    if (kept.complaint === said.error) return
    kept.complaint = said.error
    const { unit, audience, path } = kept.file
    this.#context.log('warn', 'no token file', { unit, audience, path, ...said })
  }
}

/** The user of a process, for the log. */
function ownerOf({ pid }: ProcessInstance): number {
  return statSync(`/proc/${pid}`, { throwIfNoEntry: false })?.uid ?? 0
}
