// What the steps of the demo share: where it plays, what an earlier step found out and a later one
// needs, and the services that they start.
import { join } from 'node:path'
import type { Context } from '../command.ts'
import type { Actor } from './actor.ts'
import type { Bag } from './build.ts'
import { UNITS, type AttestedRoot } from './policy-text.ts'
import type { Places, Stage } from './stage.ts'

/** One demo under way; each step reads what the ones before it set. */
export class Scene {
  readonly context: Context
  readonly stage: Stage
  readonly places: Places

  // Set by the steps, in the order in which they play.
  bags: Readonly<Record<Bag, string>> | undefined
  readonly attested = new Map<string, AttestedRoot>()
  /** Digest of the trust root's first version. */
  pin = ''
  issuer = ''
  apiUrl = ''
  orders: Actor | undefined
  /** The decision of the first token. */
  decision = ''
  /** A decision that denied. */
  denial = ''

  constructor(context: Context, stage: Stage) {
    this.context = context
    this.stage = stage
    this.places = stage.places
  }

  /** The store path of a bag. */
  bag(bag: Bag): string {
    return known(this.bags, 'the bags')[bag]
  }

  attestedRoot(bag: Bag): AttestedRoot {
    return known(this.attested.get(bag), `the attestation of ${bag}`)
  }

  /** The service that runs from its first token to the end. */
  get ordersService(): Actor {
    return known(this.orders, 'the service')
  }

  /** The data file in the closure of that service. */
  get dataFile(): string {
    return join(this.bag('orders'), 'share/prices.json')
  }

  /** Where the evidence of the first token is exported to. */
  get bundleFile(): string {
    return join(this.places.directory, 'token.evidence.json')
  }

  /** Starts a service on Node; with `pricing`, one that may compile at run time. */
  startOrders(
    unit: 'orders' | 'pricing',
    options: {
      bag?: Bag
      instance?: string
      uid?: number
      environment?: Readonly<Record<string, string>>
    } = {},
  ): Actor {
    const root = this.bag(options.bag ?? 'orders')
    const { audience } = UNITS[unit]
    const environment = { API_URL: this.apiUrl, AUDIENCE: audience, ...options.environment }
    return this.#exec(unit, options, environment, [
      join(root, 'bin/node'),
      ...(unit === 'orders' ? ['--jitless'] : []),
      join(root, 'lib/orders.mjs'),
    ])
  }

  /** Starts the perl service on a script. */
  startReports(script: string): Actor {
    const { audience } = UNITS.reports
    const command = [join(this.bag('reports'), 'bin/perl'), script]
    return this.#exec('reports', {}, { AUDIENCE: audience }, command)
  }

  #exec(
    unit: keyof typeof UNITS,
    { instance, uid = UNITS[unit].uid }: { instance?: string; uid?: number },
    environment: Readonly<Record<string, string>>,
    command: readonly string[],
  ): Actor {
    const { agentSocket, unitsDirectory } = this.places
    const variables = Object.entries({ AGENT_SOCKET: agentSocket, ...environment })
    return this.stage.start(
      ...([instance === undefined ? unit : `${unit}@${instance}`, 'bagcheck', 'exec'] as const),
      ...['--name', unit, ...(instance === undefined ? [] : ['--instance', instance])],
      ...['--user', String(uid), '--units-dir', unitsDirectory],
      ...variables.flatMap(([name, value]) => ['--env', `${name}=${value}`]),
      ...['--', ...command],
    )
  }
}

function known<T>(value: T | undefined, what: string): T {
  if (value === undefined) throw new TypeError(`${what} must be made by an earlier step`)
  return value
}
