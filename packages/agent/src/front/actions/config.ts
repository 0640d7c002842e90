// `actions` of the configuration: what follows a denial. Read by the agent, which says when, and by
// `bagcheck-agent --actions`, which does what needs root and trusts the agent in nothing but the moment.
import { AgentError, quote } from '../../error.ts'
import { list, record } from '../../config-reader.ts'
import { isUnitName } from '../token-files-config.ts'

const MAX_ACTIONS = 64
const MAX_UNITS = 256
const HOST_CLASS = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/

interface When {
  /** Unique; what a request names. */
  readonly id: string
  readonly units: readonly string[]
  /** Null for every code. */
  readonly codes: readonly string[] | null
  /** The unit must have been denied for so long. */
  readonly afterSeconds: number
  /** Between two of the same for one unit. */
  readonly minIntervalSeconds: number
}

/** Restarts the denied service. */
export interface RestartAction extends When {
  readonly do: 'restart'
}

/** Switches a profile back to what policy approves, and restarts the denied service. */
export interface RollbackAction extends When {
  readonly do: 'rollback'
  readonly profile: string
  /** The profile is the system of hosts of this class; null: it is the service's own. */
  readonly hostClass: string | null
}

/** Tells another system. */
export interface WebhookAction extends When {
  readonly do: 'webhook'
  /** `https://…`, or `unix:/path`. */
  readonly url: string
  /** PEM file; null: the system's authorities. */
  readonly ca: string | null
}

export type Action = RestartAction | RollbackAction | WebhookAction

/** What `bagcheck-agent --actions` does, and the front does not. */
export type RootAction = Exclude<Action, WebhookAction>

/** @param resolve makes a path absolute. @throws {AgentError} CONFIG_INVALID */
export function parseActions(value: unknown, resolve: (path: string) => string): Action[] {
  const actions = list(value ?? [], 'actions', MAX_ACTIONS).map((entry): Action => {
    const action = record(entry, 'actions', [
      ...['id', 'on', 'do', 'afterSeconds', 'minIntervalSeconds', 'url', 'ca'],
      ...['profile', 'hostClass'],
    ])
    const { id, do: what, url, ca = null, profile, hostClass = null } = action
    if (typeof id !== 'string' || !/^[a-z0-9][a-z0-9-]{0,63}$/.test(id)) throw invalid('id', id)
    const on = record(action['on'], 'on', ['units', 'codes'])
    const units = list(on['units'], 'units', MAX_UNITS)
    const codes = on['codes'] === undefined ? null : list(on['codes'], 'codes', MAX_UNITS)
    if (units.length === 0 || !units.every(isUnitName)) throw invalid('units', units)
    if (
      codes !== null &&
      !codes.every((code) => typeof code === 'string' && /^[A-Z_]+$/.test(code))
    )
      throw invalid('codes', codes)
    const interval = what === 'rollback' ? 3600 : 300
    const when: When = {
      ...{ id, units, codes: codes as readonly string[] | null },
      afterSeconds: seconds(action, 'afterSeconds', 0, 0),
      minIntervalSeconds: seconds(action, 'minIntervalSeconds', interval, 10),
    }
    // Of `bagcheck exec` and of a container there is nobody who would start the unit again.
    const foreign = units.find((unit) => !unit.endsWith('.service'))
    const toldOf = (...names: string[]): boolean => names.some((name) => action[name] !== undefined)
    if (what === 'restart') {
      if (foreign !== undefined || toldOf('url', 'ca', 'profile', 'hostClass'))
        throw invalid('restart', foreign ?? action)
      return { ...when, do: 'restart' }
    }
    if (what === 'rollback') {
      if (foreign !== undefined || toldOf('url', 'ca')) throw invalid('rollback', foreign ?? action)
      if (typeof profile !== 'string' || !/^(\/[^/\0]+){2,}$/.test(profile))
        throw invalid('profile', profile)
      if (hostClass !== null && !(typeof hostClass === 'string' && HOST_CLASS.test(hostClass)))
        throw invalid('hostClass', hostClass)
      // A profile is one service's, or the system's: a service's has one role that says what it may hold.
      if (hostClass === null && units.length !== 1) throw invalid('units of a rollback', units)
      return { ...when, do: 'rollback', profile, hostClass }
    }
    if (what !== 'webhook' || toldOf('profile', 'hostClass')) throw invalid('do', what)
    if (typeof url !== 'string' || !/^(https:\/\/[^\s/@?#]+(\/[^\s#]*)?|unix:\/\S+)$/.test(url))
      throw invalid('url', url)
    if (ca !== null && (typeof ca !== 'string' || ca === '')) throw invalid('ca', ca)
    return { ...when, do: 'webhook', url, ca: ca === null ? null : resolve(ca) }
  })
  const ids = actions.map(({ id }) => id)
  const twice = ids.find((id, index) => ids.indexOf(id) !== index)
  if (twice !== undefined) throw invalid('id, given twice', twice)
  return actions
}

function seconds(
  from: Record<string, unknown>,
  key: string,
  fallback: number,
  least: number,
): number {
  const value = from[key] ?? fallback
  if (Number.isInteger(value) && (value as number) >= least && (value as number) <= 86_400)
    return value as number
  throw invalid(key, value)
}

function invalid(key: string, seen: unknown): AgentError {
  return new AgentError('CONFIG_INVALID', `unexpected ${key} in actions: ${quote(seen)}`)
}
