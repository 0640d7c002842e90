// All sessions, and the processes they belong to. A process that ends, or runs another program, takes its
// sessions with it: its pidfd says the one, its instance the other.
import { AgentError } from '../error.ts'
import { describe, type Log } from '../log.ts'
import { instanceKey } from '../measure/instance.ts'
import type { ProcessInstance } from '../measure/messages.ts'
import { closePidfd, endedProcesses, openPidfd } from '../peer.ts'
import { BrokerProblem } from './broker-client.ts'
import type { Caller } from './callers.ts'
import type { Credential, IssuedToken, IssueRequest } from './issue.ts'
import type { InstanceDenied, Outcomes } from './outcomes.ts'
import { refusalOf } from './problem.ts'
import { Session, type SessionContext } from './session.ts'

const MAX_INSTANCES = 4096
const MAX_AUDIENCES = 16
const EXIT_POLL_MS = 200

interface Resident<C extends Credential> {
  readonly instance: ProcessInstance
  readonly pidfd: number
  readonly uid: number
  /** By audience; null is that of X.509-SVIDs. */
  readonly sessions: Map<string | null, Session<C>>
}

/** Of a caller, what a session needs; or of a process that the agent asks for. */
export type Asking = Pick<Caller, 'instance' | 'isPinned'> & {
  readonly peer: Pick<Caller['peer'], 'pid' | 'uid'>
}

/** Sessions by process instance and audience. */
export class Sessions<C extends Credential = IssuedToken> implements Disposable {
  readonly #residents = new Map<string, Resident<C>>()
  readonly #issue: (request: IssueRequest) => Promise<C>
  readonly #context: Omit<SessionContext<C>, 'issue'>
  readonly #log: Log
  readonly #timer: NodeJS.Timeout
  readonly #unsubscribe: () => void
  /** Whose request each is. */
  readonly #asking = new WeakMap<IssueRequest, Session<C>>()

  /** @param outcomes where denials are heard of that are about a bag, whoever asked */
  constructor(
    issue: (request: IssueRequest) => Promise<C>,
    context: Omit<SessionContext<C>, 'issue'>,
    log: Log,
    outcomes: Pick<Outcomes, 'subscribe'>,
  ) {
    this.#issue = issue
    this.#context = context
    this.#log = log
    this.#timer = setInterval(() => this.#reap(), EXIT_POLL_MS)
    this.#timer.unref()
    this.#unsubscribe = outcomes.subscribe((event) => this.#deny(event))
  }

  /** How many process instances have sessions. */
  get size(): number {
    return this.#residents.size
  }

  /** Tokens that are held. */
  get held(): number {
    const residents = [...this.#residents.values()]
    return residents.reduce(
      (sum, { sessions }) =>
        sum + [...sessions.values()].filter(({ token }) => token !== undefined).length,
      0,
    )
  }

  /**
   * The session of a caller, checked just now, for `audience`; made if there is none.
   * @throws {AgentError} REQUEST_LIMIT, PEER_UNKNOWN, PROCESS_GONE
   */
  open(caller: Asking, audience: string | null): Session<C> {
    const { instance } = caller
    const resident = this.#resident(caller)
    const known = resident.sessions.get(audience)
    if (known !== undefined && !known.hasEnded) return known
    if (known === undefined && resident.sessions.size >= MAX_AUDIENCES)
      throw new AgentError('REQUEST_LIMIT', `expected at most ${MAX_AUDIENCES} audiences`)
    const session = new Session<C>({
      ...this.#context,
      issue: async (ask) => {
        const request: IssueRequest = { ...ask, instance, audience }
        this.#asking.set(request, session)
        try {
          return await this.#issue(request)
        } catch (error) {
          this.#tell(resident, audience, error)
          this.#endIfMoved(resident, error)
          throw error
        }
      },
    })
    resident.sessions.set(audience, session)
    return session
  }

  /** All that live. */
  *live(): Iterable<Session<C>> {
    for (const { sessions } of this.#residents.values())
      for (const session of sessions.values()) if (!session.hasEnded) yield session
  }

  /** Those of some processes that live. */
  *of(pids: ReadonlySet<number>): Iterable<Session<C>> {
    for (const { instance, sessions } of this.#residents.values())
      if (pids.has(instance.pid))
        for (const session of sessions.values()) if (!session.hasEnded) yield session
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
    this.#unsubscribe()
    for (const resident of this.#residents.values()) this.#end(resident)
  }

  #resident({ instance, peer, isPinned }: Asking): Resident<C> {
    const key = instanceKey(instance)
    const known = this.#residents.get(key)
    if (known !== undefined) return known
    if (this.#residents.size >= MAX_INSTANCES) this.#evictIdle()
    const pidfd = openPidfd(instance.pid)
    // Pinned once more, since the connection may close. The pid is not another's if its first pin lives now.
    if (!isPinned()) {
      closePidfd(pidfd)
      throw new AgentError('PROCESS_GONE', `process ${peer.pid} has ended`)
    }
    const sessions = new Map<string | null, Session<C>>()
    const resident = { instance, pidfd, uid: peer.uid, sessions }
    this.#residents.set(key, resident)
    return resident
  }

  #evictIdle(): void {
    const idle = [...this.#residents.values()].find(({ sessions }) =>
      [...sessions.values()].every((session) => session.isIdle || session.hasEnded),
    )
    if (idle === undefined)
      throw new AgentError('REQUEST_LIMIT', 'too many processes have sessions')
    this.#end(idle)
  }

  // One line for every token that was not had, whether somebody asked or a session renewed.
  #tell({ instance, uid }: Resident<C>, audience: string | null, error: unknown): void {
    const { problem } = refusalOf(error)
    const reason = error instanceof BrokerProblem ? { decision: problem.decision } : describe(error)
    const about = { pid: instance.pid, uid, audience, ...reason }
    this.#log('info', 'no token', {
      ...about,
      code: problem.code,
      error: problem.error_description,
    })
  }

  /** What the same bag was given for other audiences goes too; the session that asked sees to itself. */
  #deny({ request, refusal, concerns }: InstanceDenied): void {
    const asked = this.#asking.get(request)
    for (const { instance, sessions } of this.#residents.values()) {
      if (!concerns(instance)) continue
      for (const session of sessions.values()) if (session !== asked) session.deny(refusal)
    }
  }

  #endIfMoved(resident: Resident<C>, error: unknown): void {
    const moved =
      error instanceof AgentError &&
      (error.code === 'PROCESS_MOVED' || error.code === 'PROCESS_GONE')
    if (moved) this.#end(resident)
  }

  #reap(): void {
    const residents = [...this.#residents.values()]
    const ended = new Set(endedProcesses(residents.map(({ pidfd }) => pidfd)))
    for (const resident of residents) if (ended.has(resident.pidfd)) this.#end(resident)
  }

  #end(resident: Resident<C>): void {
    if (!this.#residents.delete(instanceKey(resident.instance))) return
    for (const session of resident.sessions.values()) session.end()
    closePidfd(resident.pidfd)
    this.#log('info', 'process instance ended', { pid: resident.instance.pid })
  }
}
