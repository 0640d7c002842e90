// Tokens for programs that know nothing of sockets: a file each, kept fresh for as long as the unit is what it
// should be. The agent asks in the name of the unit's main process, and that is measured like any that asks
// itself; only bearer tokens are written, because a file proves no possession.
//
//   absent ── the unit runs ──► asking ── token ──► written ── renewed ──► written …
//      ▲                           │                    │
//      └── ended, moved ───────────┴── denied: removed ─┘      (the session goes on asking, with back-off)
//
// The files are also removed at the start, because a killed agent leaves them, and at the stop.
import { statSync } from 'node:fs'
import { AgentError } from '../error.ts'
import { describe, type Log } from '../log.ts'
import { wantedUnit } from '../measure/find-units.ts'
import { sameInstance } from '../measure/instance.ts'
import type { ProcessInstance } from '../measure/messages.ts'
import { closePidfd, endedProcesses, openPidfd } from '../peer.ts'
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
  readonly log: Log
}

interface Kept {
  readonly file: TokenFile
  /** Whose token it is, and what ends that. */
  holder: { readonly instance: ProcessInstance; readonly stop: () => void } | undefined
  written: boolean
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

  constructor(files: readonly TokenFile[], context: TokenFilesContext) {
    this.#context = context
    this.#files = files.map((file) => ({
      ...{ file, holder: undefined, complaint: undefined },
      written: true, // perhaps, by an agent that was killed
      doomed: true,
    }))
    for (const kept of this.#files) this.#remove(kept)
    this.#timer = setInterval(() => void this.#look(), LOOK_MS)
    this.#timer.unref()
    void this.#look()
  }

  /** Files that hold a token now. */
  get written(): number {
    return this.#files.filter(({ written }) => written).length
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    for (const kept of this.#files) this.#letGo(kept)
  }

  async #look(): Promise<void> {
    if (this.#looking) return
    this.#looking = true
    for (const kept of this.#files) {
      try {
        if (kept.doomed) this.#remove(kept)
        if (kept.holder !== undefined) await this.#check(kept)
        if (kept.holder === undefined) await this.#find(kept)
      } catch (error) {
        this.#complain(kept, error)
      }
    }
    this.#looking = false
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
    if (instance === undefined) return
    if (others.length > 0)
      throw new AgentError(
        'UNIT_RECORD',
        `expected one unit ${unit} for a token file, saw ${others.length + 1}`,
      )
    const session = await this.#open(instance, audience)
    const unwatch = session.watch(
      (event) => this.#hear(kept, instance, event),
      () => this.#letGo(kept),
    )
    kept.holder = { instance, stop: unwatch }
    await session
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
    if (event.kind === 'denied') return this.#remove(kept)
    try {
      if (event.token.tokenType !== 'Bearer')
        throw new AgentError(
          'TOKEN_FILE_BOUND',
          `tokens for ${kept.file.audience} are bound to a key, and a file proves none`,
        )
      writeTokenFile(kept.file, event.token.accessToken)
      kept.written = true
      kept.doomed = false
      kept.complaint = undefined
    } catch (error) {
      this.#remove(kept)
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
    if (!kept.written) return
    kept.doomed = true
    try {
      removeTokenFile(kept.file)
      kept.written = kept.doomed = false
    } catch (error) {
      this.#complain(kept, error) // and once more at the next look
    }
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
