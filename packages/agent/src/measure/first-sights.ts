// What the main process of each systemd service ran when it was first seen. PID 1 tells what it started,
// not at which addresses its text and stack began, so that an exec of the same program shows only against
// an earlier look. A first sight that is forgotten lets such an exec pass as the first sight: they are kept
// in one place for all measuring threads, and written down before the measurement they belong to is used,
// so that neither another thread nor a restart of the agent looks for the first time again.
//
//   {"schema": "bagcheck.first-sights/v1", "bootId": …, "seen": [{pid, startTicks, device, inode,
//    startCode, startStack}, …]}        the one asked about longest ago first
//
// Pids and start times mean nothing after a boot; then the file is one of nothing. A file that is not as
// above is an error and not an empty one.
import { AgentError, quote } from '../error.ts'
import { sameInstance } from './instance.ts'
import type { ProcessInstance } from './messages.ts'

/** Most services remembered: what can ask from a systemd service, root has started. */
export const MAX_FIRST_SIGHTS = 4096
const SCHEMA = 'bagcheck.first-sights/v1'
const MEMBERS = ['device', 'inode', 'pid', 'startCode', 'startStack', 'startTicks']

/** Where first sights outlive the agent. */
export interface FirstSightsStore {
  /** The kernel's id of this boot. */
  readonly bootId: string
  /** What was saved last, or undefined. */
  readonly text: string | undefined
  /** Replaces what was saved, durably, or throws. */
  readonly save: (text: string) => void
}

/** First sights of one boot. */
export class FirstSights {
  readonly #store: FirstSightsStore
  // In the order in which they were asked about.
  readonly #seen: Map<string, ProcessInstance>

  /**
   * @param lives whether a process still runs, whatever it runs: the others are dropped at once
   * @throws {AgentError} STATE_INVALID
   */
  constructor(store: FirstSightsStore, lives: (instance: ProcessInstance) => boolean) {
    this.#store = store
    const seen = parseFirstSights(store.text, store.bootId).filter(lives)
    this.#seen = new Map(seen.map((instance) => [keyOf(instance), instance]))
  }

  /**
   * True if the process of `instance` ran the same program when it was first seen, which may be now; then
   * that is on disk. The one that was not asked about for longest is forgotten first: services that come
   * and go must not make us forget one that stays.
   * @throws {AgentError} STATE_INVALID if it cannot be written down
   */
  matches(instance: ProcessInstance): boolean {
    const key = keyOf(instance)
    const first = this.#seen.get(key)
    this.#seen.delete(key)
    this.#seen.set(key, first ?? instance)
    if (first !== undefined) return sameInstance(first, instance)
    const oldest = this.#seen.keys().next().value
    if (this.#seen.size > MAX_FIRST_SIGHTS && oldest !== undefined) this.#seen.delete(oldest)
    try {
      this.#store.save(this.#format())
    } catch (cause) {
      this.#seen.delete(key)
      throw new AgentError('STATE_INVALID', 'cannot write down a first sight', { cause })
    }
    return true
  }

  #format(): string {
    return JSON.stringify({
      schema: SCHEMA,
      bootId: this.#store.bootId,
      seen: [...this.#seen.values()],
    })
  }
}

/**
 * The first sights in `text`, none if they are of another boot.
 * @throws {AgentError} STATE_INVALID
 */
export function parseFirstSights(text: string | undefined, bootId: string): ProcessInstance[] {
  if (text === undefined) return []
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new AgentError('STATE_INVALID', 'expected first sights as JSON', { cause })
  }
  const file = members(value, ['bootId', 'schema', 'seen'])
  if (file['schema'] !== SCHEMA) throw invalid('schema', file['schema'])
  if (typeof file['bootId'] !== 'string') throw invalid('bootId', file['bootId'])
  const seen = file['seen']
  if (!Array.isArray(seen) || seen.length > MAX_FIRST_SIGHTS) throw invalid('seen', seen)
  const instances = (seen as unknown[]).map(parseInstance)
  const keys = new Set(instances.map(keyOf))
  if (keys.size !== instances.length) throw invalid('seen', 'a process twice')
  return file['bootId'] === bootId ? instances : []
}

function parseInstance(value: unknown): ProcessInstance {
  const fields = members(value, MEMBERS)
  const count = (key: string): number => {
    const field = fields[key]
    if (Number.isSafeInteger(field) && (field as number) >= 0) return field as number
    throw invalid(key, field)
  }
  const string = (key: string, grammar: RegExp): string => {
    const field = fields[key]
    if (typeof field === 'string' && grammar.test(field)) return field
    throw invalid(key, field)
  }
  return {
    pid: count('pid'),
    startTicks: count('startTicks'),
    device: string('device', /^\d{1,10}:\d{1,10}$/),
    inode: string('inode', /^\d{1,20}$/),
    startCode: count('startCode'),
    startStack: count('startStack'),
  }
}

function members(value: unknown, names: readonly string[]): Record<string, unknown> {
  const plain = typeof value === 'object' && value !== null && !Array.isArray(value)
  const seen = plain ? Object.keys(value).toSorted() : []
  if (!plain || seen.join() !== names.join()) throw invalid('members', plain ? seen : value)
  return value as Record<string, unknown>
}

const keyOf = ({ pid, startTicks }: ProcessInstance): string => `${pid}/${startTicks}`

function invalid(what: string, seen: unknown): AgentError {
  return new AgentError('STATE_INVALID', `unexpected ${what} in first sights: ${quote(seen)}`)
}
