// What follows a denial, besides that nothing is handed out any more. Here is decided when; a restart or a
// rollback is done by another process (actions/server.ts), because this one needs no right to it.
import { setTimeout as sleep } from 'node:timers/promises'
import { describe, type Log } from '../../log.ts'
import type { SigningKey } from '../jws.ts'
import type { Denial, InstanceDenied, Outcomes, UnitName } from '../outcomes.ts'
import type { Action } from './config.ts'
import { requestAction } from './request.ts'
import { deliver, type WebhookContext } from './webhook.ts'

/** What actions need. */
export interface ActionsContext extends Omit<WebhookContext, 'signal'> {
  readonly outcomes: Pick<Outcomes, 'subscribe' | 'isDenied'>
  readonly key: SigningKey
  /** Where `bagcheck-agent --actions` listens. */
  readonly actionsSocket: string
  readonly log: Log
  readonly now: () => number
}

/** Runs configured actions until it is disposed of. */
export class Actions implements AsyncDisposable {
  readonly #context: ActionsContext
  readonly #actions: readonly Action[]
  readonly #unsubscribe: () => void
  readonly #stopping = new AbortController()
  // By action and unit: when it was begun last. Bounded by the configuration, which names the units.
  readonly #begun = new Map<string, number>()
  readonly #running = new Set<Promise<void>>()

  constructor(actions: readonly Action[], context: ActionsContext) {
    this.#actions = actions
    this.#context = context
    this.#unsubscribe = context.outcomes.subscribe((event) => this.#hear(event))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#unsubscribe()
    this.#stopping.abort()
    await Promise.all(this.#running)
  }

  #hear({ denial }: InstanceDenied): void {
    const { unit, code, reasons } = denial
    if (unit === null) return
    const codes = [code, ...reasons.map((reason) => reason.code)]
    for (const action of this.#actions) {
      const wanted = action.codes === null || action.codes.some((one) => codes.includes(one))
      const named = action.units.includes(unit.name) && isOfItsLauncher(unit)
      const key = `${action.id} ${unit.name}`
      const last = this.#begun.get(key) ?? Number.NEGATIVE_INFINITY
      const due = this.#context.now() - last >= action.minIntervalSeconds * 1000
      if (!wanted || !named || !due) continue
      this.#begun.set(key, this.#context.now())
      const running = this.#run(action, denial, unit.name).finally(() =>
        this.#running.delete(running),
      )
      this.#running.add(running)
    }
  }

  async #run(action: Action, denial: Denial, unit: string): Promise<void> {
    const { outcomes, actionsSocket, log } = this.#context
    const { signal } = this.#stopping
    const about = { action: action.id, unit, code: denial.code, decision: denial.decision }
    try {
      if (action.afterSeconds > 0)
        await sleep(action.afterSeconds * 1000, undefined, { signal, ref: false })
      if (!outcomes.isDenied(denial)) return log('info', 'action not needed any more', about)
      if (action.do === 'webhook') await deliver(action, denial, { ...this.#context, signal })
      else await requestAction(actionsSocket, { action: action.id, unit, what: action.do })
      log('warn', 'acted on a denial', about)
    } catch (error) {
      if (!signal.aborted) log('error', 'action failed', { ...about, ...describe(error) })
    }
  }
}

/** Who may make cgroups, such as root of a container, can call one like a service; below slices only PID 1 makes any. */
function isOfItsLauncher({ launcher, name, cgroup }: UnitName): boolean {
  if (!name.endsWith('.service')) return launcher === 'bagcheck-exec'
  const above = cgroup.slice(1).split('/')
  const own = above.pop()
  return launcher === 'systemd' && own === name && above.every((part) => part.endsWith('.slice'))
}
