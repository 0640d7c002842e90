// What PID 1 said of each systemd service, and what its main process ran, when they were first seen. Both
// are needed later, because PID 1
//   - does not tell at which addresses text and stack began: an exec of the same program shows only against
//     an earlier look;
//   - tells of a service what its unit files say now: after a daemon-reload that is another command than the
//     one it ran, and a process that dressed up as it would get a newer bag's identity.
// So the contract is what PID 1 said at first sight, if it then still vouched for having run just that. A
// service that was first seen after a reload has no intact contract until it is restarted.
//
// A first sight that is forgotten lets an exec pass as the first sight: they are kept in one place for all
// measuring threads, and written down before the measurement they belong to is used, so that neither
// another thread nor a restart of the agent looks for the first time again.
//
// The same goes for the settings that a service was started with: a digest of them is kept, or null where
// even then nobody could say. The first process of a container is kept alike: its runtime does not tell where
// its text began either.
//
//   {"schema": "bagcheck.first-sights/v1", "bootId": …, "seen": [{instance: {pid, startTicks, device, inode,
//    startCode, startStack}, executable, arguments, settings}, …]}       the one asked about longest ago first
//
// Pids and start times mean nothing after a boot; then the file is one of nothing. A file that is not as
// above is an error and not an empty one.
import { createHash } from 'node:crypto'
import { AgentError, quote } from '../error.ts'
import { sameInstance } from './instance.ts'
import type {
  LaunchContract,
  MainProcess,
  ProcessInstance,
  ServiceFacts,
  UnitFacts,
} from './messages.ts'

/** Most services remembered: what can ask from a systemd service, root has started. */
export const MAX_FIRST_SIGHTS = 4096
const SCHEMA = 'bagcheck.first-sights/v1'
const SIGHT_MEMBERS = ['arguments', 'executable', 'instance', 'settings']
const INSTANCE_MEMBERS = ['device', 'inode', 'pid', 'startCode', 'startStack', 'startTicks']

/** A service as it was first seen. */
export interface FirstSight {
  readonly instance: ProcessInstance
  readonly executable: string
  /** Without `argv[0]`. */
  readonly arguments: readonly string[]
  /** sha256 of the settings that it was started with; null if that was not known. */
  readonly settings: string | null
}

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
  #seen: Map<string, FirstSight>

  /**
   * @param lives whether a process still runs, whatever it runs: the others are dropped at once
   * @throws {AgentError} STATE_INVALID
   */
  constructor(store: FirstSightsStore, lives: (instance: ProcessInstance) => boolean) {
    this.#store = store
    const seen = parseFirstSights(store.text, store.bootId).filter(({ instance }) =>
      lives(instance),
    )
    this.#seen = new Map(seen.map((sight) => [keyOf(sight.instance), sight]))
  }

  /**
   * The unit with its contract and settings as at first sight.
   * @throws {AgentError} STATE_INVALID if that cannot be written down
   */
  settleUnit(unit: UnitFacts, main: MainProcess): UnitFacts {
    const { contract, service } = unit
    if (contract === null) return unit
    const settings = service === null ? null : digestOf(service)
    const asStarted = service?.asStarted === true ? settings : null
    const settled = this.settle(contract, main, asStarted)
    if (service === null) return { ...unit, contract: settled }
    const known = this.#seen.get(keyOf(main.instance))?.settings ?? null
    return {
      ...unit,
      contract: settled,
      service: { ...service, asStarted: known !== null && known === settings },
    }
  }

  /**
   * The contract of a service whose main process is `main`: the command of the first sight, which may be
   * now and is on disk then; intact if the process still runs what it ran at first sight. The service that
   * was not asked about for longest is forgotten first: those that come and go must not make us forget one
   * that stays.
   * @throws {AgentError} STATE_INVALID if it cannot be written down
   */
  settle(
    contract: LaunchContract,
    { instance, witnessed }: MainProcess,
    settings: string | null = null,
  ): LaunchContract {
    const key = keyOf(instance)
    const first = this.#seen.get(key)
    if (first === undefined) {
      if (!contract.intact || !witnessed) return { ...contract, intact: false }
      this.#remember(key, {
        instance,
        executable: contract.executable,
        arguments: contract.arguments,
        settings,
      })
      return contract
    }
    this.#seen.delete(key)
    this.#seen.set(key, first)
    return {
      ...contract,
      executable: first.executable,
      arguments: [...first.arguments],
      intact: sameInstance(first.instance, instance),
    }
  }

  #remember(key: string, sight: FirstSight): void {
    const seen = new Map(this.#seen).set(key, sight)
    const oldest = seen.keys().next().value
    if (seen.size > MAX_FIRST_SIGHTS && oldest !== undefined) seen.delete(oldest)
    const { bootId, save } = this.#store
    try {
      save(JSON.stringify({ schema: SCHEMA, bootId, seen: [...seen.values()] }))
    } catch (cause) {
      throw new AgentError('STATE_INVALID', 'cannot write down a first sight', { cause })
    }
    this.#seen = seen
  }
}

/**
 * The first sights in `text`, none if they are of another boot.
 * @throws {AgentError} STATE_INVALID
 */
export function parseFirstSights(text: string | undefined, bootId: string): FirstSight[] {
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
  const sights = (seen as unknown[]).map(parseFirstSight)
  const keys = new Set(sights.map(({ instance }) => keyOf(instance)))
  if (keys.size !== sights.length) throw invalid('seen', 'a process twice')
  return file['bootId'] === bootId ? sights : []
}

function parseFirstSight(value: unknown): FirstSight {
  const { instance, executable, arguments: args, settings } = members(value, SIGHT_MEMBERS)
  if (typeof executable !== 'string' || !executable.startsWith('/'))
    throw invalid('executable', executable)
  if (!Array.isArray(args) || !args.every((arg) => typeof arg === 'string'))
    throw invalid('arguments', args)
  const isDigest = typeof settings === 'string' && /^[0-9a-f]{64}$/.test(settings)
  if (settings !== null && !isDigest) throw invalid('settings', settings)
  return { instance: parseInstance(instance), executable, arguments: args as string[], settings }
}

function parseInstance(value: unknown): ProcessInstance {
  const fields = members(value, INSTANCE_MEMBERS)
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

/** What a service is started with; whether files have changed since is no part of it. */
function digestOf({ fragment, dropIns, source, transient, settings: said }: ServiceFacts): string {
  const settings = { fragment, dropIns, source, transient, said }
  return createHash('sha256').update(JSON.stringify(settings)).digest('hex')
}

const keyOf = ({ pid, startTicks }: ProcessInstance): string => `${pid}/${startTicks}`

function invalid(what: string, seen: unknown): AgentError {
  return new AgentError('STATE_INVALID', `unexpected ${what} in first sights: ${quote(seen)}`)
}
