// The configuration file: JSON, every key known, checked by hand because the agent carries no schema
// library. Relative paths start at the file's directory.
import { readFileSync } from 'node:fs'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { STORE_DIR } from '@bagcheck/nix'
import { record } from './config-reader.ts'
import { AgentError, quote } from './error.ts'
import { parseActions, type Action } from './front/actions/config.ts'
import { parseTokenFiles } from './front/token-files-config.ts'
import type { TokenFile } from './front/token-files.ts'
import type { MeasurerOptions } from './measure/messages.ts'

/** The measurer as a process. */
export interface MeasurerConfig {
  /** Where it listens; null: the agent starts its own. */
  readonly socket: string | null
  /** Whom it becomes if it is started as root: a name or a number. */
  readonly user: string
  readonly stateDir: string
}

/** All that the measurer needs to know. */
export interface MeasurerSettings extends MeasurerConfig {
  readonly options: Omit<MeasurerOptions, 'sharedMemoryDevice'>
}

/** `bagcheck-agent --config FILE`. Paths are absolute once parsed. */
export interface AgentConfig {
  readonly installation: string
  /** `https://…`, `http://…` on loopback only, or `unix:/path` to the broker's socket. */
  readonly broker: string
  /** What the broker calls itself, the audience of evidence; default: `broker`. */
  readonly issuer: string
  /** PEM file of the authority that signed the broker's certificate; null: the system's. */
  readonly brokerCa: string | null
  /** sha256 of version 1 of the trust root. */
  readonly trustRootPin: string
  /** Whom the front becomes if it is started as root: a name or a number. */
  readonly user: string
  readonly stateDir: string
  readonly socket: string
  /** Where SPIFFE clients find the Workload API; default: beside `socket`; null: nowhere. */
  readonly spiffeSocket: string | null
  readonly measurer: MeasurerConfig
  readonly unitsDir: string
  /** Where container runtimes keep their state; a last part `*` stands for every directory there. */
  readonly ociStateDirs: readonly string[]
  /** Envelope file, used once if the node is not enrolled. */
  readonly joinToken: string | null
  readonly nix: { readonly daemonSocket: string; readonly database: string }
  /** Longest use of one check of a closure's content by several requests. */
  readonly storeCheckIntervalSeconds: number
  /** Between two looks at the units that the policy wants observed; 0 observes none. */
  readonly observeIntervalSeconds: number
  /** What follows a denial. */
  readonly actions: readonly Action[]
  /** Where `bagcheck-agent --actions` listens. */
  readonly actionsSocket: string
  /** Tokens for programs that know nothing of sockets. */
  readonly tokenFiles: readonly TokenFile[]
}

/** runc and crun by themselves, containerd's and docker's runc by namespace. */
const OCI_STATE_DIRS = [
  ...['/run/runc', '/run/crun'],
  ...['/run/containerd/runc/*', '/run/docker/runtime-runc/*'],
]
const MAX_CONFIG_BYTES = 64 * 1024
const USER = /^([a-z_][a-z0-9_-]{0,31}|\d{1,10})$/

/** @throws {AgentError} CONFIG_INVALID, CONFIG_TLS_REQUIRED */
export function loadConfig(file: string): AgentConfig {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    throw new AgentError('CONFIG_INVALID', `cannot read ${quote(file)}`, { cause })
  }
  if (text.length > MAX_CONFIG_BYTES) throw invalid('file', text.length)
  return parseConfig(text, dirname(resolve(file)))
}

/** @throws {AgentError} CONFIG_INVALID, CONFIG_TLS_REQUIRED */
export function parseConfig(text: string, directory: string): AgentConfig {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new AgentError('CONFIG_INVALID', 'expected JSON in the configuration', { cause })
  }
  const config = record(value, 'configuration', [
    ...['installation', 'broker', 'issuer', 'brokerCa', 'trustRootPin', 'stateDir', 'socket'],
    ...['spiffeSocket', 'unitsDir', 'ociStateDirs', 'joinToken', 'nix'],
    ...['storeCheckIntervalSeconds', 'user', 'measurer'],
    ...['observeIntervalSeconds', 'tokenFiles', 'actions', 'actionsSocket'],
  ])
  const measurer = record(config['measurer'] ?? {}, 'measurer', ['socket', 'user', 'stateDir'])
  const nix = record(config['nix'] ?? {}, 'nix', ['daemonSocket', 'database'])
  const stringOf = (
    from: Record<string, unknown>,
    key: string,
    grammar: RegExp,
    fallback?: string,
  ): string => {
    const field = from[key] ?? fallback
    if (typeof field === 'string' && grammar.test(field)) return field
    throw invalid(key, from[key])
  }
  const string = (key: string, grammar: RegExp, fallback?: string): string =>
    stringOf(config, key, grammar, fallback)
  const path = (from: Record<string, unknown>, key: string, fallback?: string): string => {
    const field = from[key] ?? fallback
    if (typeof field !== 'string' || field === '') throw invalid(key, field)
    return isAbsolute(field) ? field : resolve(directory, field)
  }
  const optionalPath = (key: string): string | null =>
    config[key] === undefined || config[key] === null ? null : path(config, key)
  const broker = string('broker', /^(https?:\/\/[^/?#\s]+|unix:\/\S+)$/)
  assertConfidential(broker)
  const socket = path(config, 'socket', '/run/bagcheck/agent.sock')
  const interval = config['storeCheckIntervalSeconds'] ?? 1
  if (typeof interval !== 'number' || !(interval >= 0 && interval <= 60))
    throw invalid('storeCheckIntervalSeconds', interval)
  const stateDir = path(config, 'stateDir', '/var/lib/bagcheck-agent')
  const observeInterval = config['observeIntervalSeconds'] ?? 300
  if (typeof observeInterval !== 'number' || !(observeInterval >= 0 && observeInterval <= 86_400))
    throw invalid('observeIntervalSeconds', observeInterval)
  return {
    installation: string('installation', /^[a-z0-9][a-z0-9.-]{0,63}$/),
    broker,
    issuer: string('issuer', /^https?:\/\/\S{1,500}$/, broker),
    brokerCa: optionalPath('brokerCa'),
    trustRootPin: string('trustRootPin', /^[0-9a-f]{64}$/),
    user: string('user', USER, 'bagcheck-agent'),
    stateDir,
    socket,
    spiffeSocket:
      config['spiffeSocket'] === null
        ? null
        : path(config, 'spiffeSocket', join(dirname(socket), 'spiffe.sock')),
    measurer: {
      socket: (measurer['socket'] ?? null) === null ? null : path(measurer, 'socket'),
      user: stringOf(measurer, 'user', USER, 'root'),
      stateDir: path(measurer, 'stateDir', `${stateDir}-measurer`),
    },
    unitsDir: path(config, 'unitsDir', '/run/bagcheck-units'),
    ociStateDirs: ociStateDirs(config['ociStateDirs'] ?? OCI_STATE_DIRS),
    joinToken: optionalPath('joinToken'),
    nix: {
      daemonSocket: path(nix, 'daemonSocket', '/nix/var/nix/daemon-socket/socket'),
      database: path(nix, 'database', '/nix/var/nix/db/db.sqlite'),
    },
    storeCheckIntervalSeconds: interval,
    observeIntervalSeconds: observeInterval,
    actions: parseActions(config['actions'], (file) => resolve(directory, file)),
    actionsSocket: path(config, 'actionsSocket', '/run/bagcheck-actions/actions.sock'),
    tokenFiles: parseTokenFiles(config['tokenFiles'], (file) => resolve(directory, file)),
  }
}

function ociStateDirs(value: unknown): readonly string[] {
  const list = Array.isArray(value) ? (value as unknown[]) : [value]
  const isDirectory = (path: unknown): path is string =>
    typeof path === 'string' && /^(\/[^/*\0]+)+(\/\*)?$/.test(path)
  if (list.length <= 32 && list.every(isDirectory)) return list
  throw invalid('ociStateDirs', value)
}

/** What of a configuration is the measurer's. */
export function measurerSettings(config: AgentConfig): MeasurerSettings {
  const { measurer, unitsDir, ociStateDirs } = config
  return { ...measurer, options: { unitsDir, ociStateDirs, storeDir: STORE_DIR } }
}

/** Tokens travel on this connection: without TLS only inside this host. */
function assertConfidential(broker: string): void {
  if (!broker.startsWith('http:')) return
  const { hostname } = new URL(broker)
  if (hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d+){3}$/.test(hostname)) return
  throw new AgentError('CONFIG_TLS_REQUIRED', `expected https for a broker at ${quote(broker)}`)
}

function invalid(key: string, seen: unknown): AgentError {
  const hint =
    key === 'trustRootPin' ? '; expected what "bagcheck policy pin root.json" prints' : ''
  return new AgentError('CONFIG_INVALID', `unexpected ${key}: ${quote(seen)}${hint}`)
}
