// The configuration file: JSON, every key known, checked by hand because the agent carries no schema
// library. Relative paths start at the file's directory.
import { readFileSync } from 'node:fs'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { AgentError, quote } from './error.ts'

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
  readonly stateDir: string
  readonly socket: string
  /** Where SPIFFE clients find the Workload API; default: beside `socket`; null: nowhere. */
  readonly spiffeSocket: string | null
  readonly unitsDir: string
  /** Where container runtimes keep their state; a last part `*` stands for every directory there. */
  readonly ociStateDirs: readonly string[]
  /** Envelope file, used once if the node is not enrolled. */
  readonly joinToken: string | null
  readonly nix: { readonly daemonSocket: string; readonly database: string }
  /** Longest use of one check of a closure's content by several requests. */
  readonly storeCheckIntervalSeconds: number
}

/** runc and crun by themselves, containerd's and docker's runc by namespace. */
const OCI_STATE_DIRS = [
  ...['/run/runc', '/run/crun'],
  ...['/run/containerd/runc/*', '/run/docker/runtime-runc/*'],
]
const MAX_CONFIG_BYTES = 64 * 1024

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
    ...[
      'spiffeSocket',
      'unitsDir',
      'ociStateDirs',
      'joinToken',
      'nix',
      'storeCheckIntervalSeconds',
    ],
  ])
  const nix = record(config['nix'] ?? {}, 'nix', ['daemonSocket', 'database'])
  const string = (key: string, grammar: RegExp, fallback?: string): string => {
    const field = config[key] ?? fallback
    if (typeof field === 'string' && grammar.test(field)) return field
    throw invalid(key, config[key])
  }
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
  return {
    installation: string('installation', /^[a-z0-9][a-z0-9.-]{0,63}$/),
    broker,
    issuer: string('issuer', /^https?:\/\/\S{1,500}$/, broker),
    brokerCa: optionalPath('brokerCa'),
    trustRootPin: string('trustRootPin', /^[0-9a-f]{64}$/),
    stateDir: path(config, 'stateDir', '/var/lib/bagcheck-agent'),
    socket,
    spiffeSocket:
      config['spiffeSocket'] === null
        ? null
        : path(config, 'spiffeSocket', join(dirname(socket), 'spiffe.sock')),
    unitsDir: path(config, 'unitsDir', '/run/bagcheck/units'),
    ociStateDirs: ociStateDirs(config['ociStateDirs'] ?? OCI_STATE_DIRS),
    joinToken: optionalPath('joinToken'),
    nix: {
      daemonSocket: path(nix, 'daemonSocket', '/nix/var/nix/daemon-socket/socket'),
      database: path(nix, 'database', '/nix/var/nix/db/db.sqlite'),
    },
    storeCheckIntervalSeconds: interval,
  }
}

function ociStateDirs(value: unknown): readonly string[] {
  const list = Array.isArray(value) ? (value as unknown[]) : [value]
  const isDirectory = (path: unknown): path is string =>
    typeof path === 'string' && /^(\/[^/*\0]+)+(\/\*)?$/.test(path)
  if (list.length <= 32 && list.every(isDirectory)) return list
  throw invalid('ociStateDirs', value)
}

/** Tokens travel on this connection: without TLS only inside this host. */
function assertConfidential(broker: string): void {
  if (!broker.startsWith('http:')) return
  const { hostname } = new URL(broker)
  if (hostname === 'localhost' || hostname === '[::1]' || /^127(\.\d+){3}$/.test(hostname)) return
  throw new AgentError('CONFIG_TLS_REQUIRED', `expected https for a broker at ${quote(broker)}`)
}

function record(value: unknown, name: string, keys: readonly string[]): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw invalid(name, value)
  const unknown = Object.keys(value).find((key) => !keys.includes(key))
  if (unknown !== undefined)
    throw new AgentError('CONFIG_INVALID', `unknown key ${quote(unknown)} in ${name}`)
  return value as Record<string, unknown>
}

function invalid(key: string, seen: unknown): AgentError {
  const hint =
    key === 'trustRootPin' ? '; expected what "bagcheck policy pin root.json" prints' : ''
  return new AgentError('CONFIG_INVALID', `unexpected ${key}: ${quote(seen)}${hint}`)
}
