// The packed broker and agent of one installation, as processes; each on a core of its own.
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { NIX_DAEMON_SOCKET } from '@bagcheck/nix'
import type { Attested } from './closures.ts'
import { furnish } from './furnish.ts'
import { openHttp } from './http.ts'
import { INSTALLATION, type Installation } from './installation.ts'
import { packedCommand, startPacked, type Running } from './packed.ts'

const ISSUER = 'https://broker.bench.test'

/** Starts the broker, on SQLite. */
export function startBroker(installation: Installation): Promise<Running> {
  const store = { sqlite: 'bagcheck.sqlite' }
  const config = installation.brokerConfig('broker', { port: 0, issuer: ISSUER, store })
  return startPacked([...packedCommand('bagcheck-broker', 0), '--config', config])
}

/** Gives it a policy of ten roots in one role, and what is attested. */
export async function furnishOne(
  installation: Installation<Attested>,
  broker: Running,
): Promise<void> {
  using client = openHttp({ url: broker.ready['listen'] ?? '' })
  await furnish(installation, [client], { roots: 10, roles: 1 })
}

/** The agent's socket, where other users reach it. */
export const socketOf = (directory: string): string => join(`${directory}-run`, 'agent.sock')

/** Starts the agent, with a join token and without units. */
export function startAgent(installation: Installation, broker: Running): Promise<Running> {
  const { directory, pin } = installation
  mkdirSync(join(directory, 'units'), { recursive: true, mode: 0o700 })
  const joinToken = join(directory, 'join.json')
  writeFileSync(joinToken, installation.joinToken())
  const config = join(directory, 'agent.json')
  writeFileSync(
    config,
    JSON.stringify({
      installation: INSTALLATION,
      broker: broker.ready['listen'],
      issuer: ISSUER,
      trustRootPin: pin,
      user: '61000',
      stateDir: `${directory}-agent`,
      socket: socketOf(directory),
      unitsDir: 'units',
      joinToken,
      nix: { daemonSocket: NIX_DAEMON_SOCKET },
    }),
  )
  return startPacked([...packedCommand('bagcheck-agent', 1), '--config', config])
}
