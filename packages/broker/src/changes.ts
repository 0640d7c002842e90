// What long polls wait on.
import { EventEmitter, once } from 'node:events'

/** Something that changes now and then, and whoever waits for that. */
export class Changes {
  readonly #changed = new EventEmitter().setMaxListeners(0)

  /** Lets everybody who waits go on. */
  emit(): void {
    this.#changed.emit('change')
  }

  /** Resolves at the next change, after `ms`, or when `signal` aborts. */
  async wait(ms: number, signal: AbortSignal): Promise<void> {
    const either = AbortSignal.any([signal, AbortSignal.timeout(ms)])
    try {
      await once(this.#changed, 'change', { signal: either })
    } catch (error) {
      if (!either.aborted) throw error
    }
  }
}
