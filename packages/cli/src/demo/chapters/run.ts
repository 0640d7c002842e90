import { rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { NIX_DAEMON_SOCKET, NIX_DATABASE_FILE } from '@bagcheck/nix'
import type { ActorEvent } from '../actor.ts'
import { ANSWER_MS, nextToken, notAsTold } from '../answers.ts'
import type { Chapter } from '../chapter.ts'
import { publishPolicy } from '../policies.ts'
import { AGENT_UID, TTL_SECONDS, UNITS } from '../policy-text.ts'
import type { Scene } from '../scene.ts'
import { findFreePort, INSTALLATION } from '../stage.ts'
import type { Told } from '../teller.ts'

export const run: Chapter = {
  title: 'Run time: no attested, approved closure, no token',
  steps: [
    {
      id: 'broker',
      title: 'The broker starts, with its log',
      essential: true,
      play: startBroker,
    },
    {
      id: 'publish',
      title: 'Policy and attestations are brought to it and logged',
      essential: true,
      play: publish,
    },
    {
      id: 'enrol',
      title: 'The agent starts; a signed join token enrols the node, once',
      essential: true,
      play: enrol,
    },
    {
      id: 'issue',
      title: 'The service asks, its bag is measured, it gets a token',
      essential: true,
      play: issue,
    },
    {
      id: 'verify',
      title: 'A relying party on a stock OAuth client accepts it',
      play: verify,
    },
    {
      id: 'renew',
      title: 'It is renewed twice at half its life, each time measured again',
      play: renew,
    },
  ],
}

async function startBroker(scene: Scene): Promise<Told> {
  const { trust, keys, adminSocket } = scene.places
  const directory = dirname(adminSocket)
  const port = await findFreePort()
  scene.issuer = `http://127.0.0.1:${port}`
  const config = join(directory, 'broker.json')
  writeJson(config, {
    installation: INSTALLATION,
    issuer: scene.issuer,
    stateDir: join(directory, 'state'),
    listen: { host: '127.0.0.1', port, tls: null },
    adminSocket,
    store: { sqlite: 'bagcheck.sqlite' },
    trustRoot: { pin: scene.pin, chain: [join(trust, 'root.json')] },
    logKey: join(keys, 'log.key'),
    decisionKey: join(keys, 'broker.pem'),
  })
  const broker = scene.stage.start('broker', 'broker', '--config', config)
  const ready = await broker.next(({ msg }) => msg === 'ready')
  return { seen: [`listening on ${String(ready['listen'])}`] }
}

async function publish(scene: Scene): Promise<Told> {
  const policy = await publishPolicy(scene, 1)
  const submitted = await scene.stage.bagcheck<{ attestations: { logIndex: number }[] }>(
    ...['attest', 'submit', scene.places.attestations, '--broker', scene.issuer],
  )
  const attestations = submitted.attestations.map(({ logIndex }) => logIndex)
  return {
    seen: [`log entries: policy ${policy}, attestations ${attestations.join(', ')}`],
    facts: { policy, attestations },
  }
}

async function enrol(scene: Scene): Promise<Told> {
  const { directory, keys, agentSocket, unitsDirectory } = scene.places
  const joinToken = join(keys, 'join.json')
  const signing = ['--installation', INSTALLATION, '--key', join(keys, 'enrolment.pem')]
  await scene.stage.bagcheck(
    ...['node', 'join-token', ...signing, '--class', 'demo', '-o', joinToken],
  )
  const config = join(unitsDirectory, '..', 'agent.json')
  writeJson(config, {
    installation: INSTALLATION,
    broker: scene.issuer,
    brokerCa: null,
    trustRootPin: scene.pin,
    user: String(AGENT_UID),
    stateDir: join(directory, 'agent-state'),
    socket: agentSocket,
    unitsDir: unitsDirectory,
    joinToken,
    storeCheckIntervalSeconds: 0,
    nix: { daemonSocket: NIX_DAEMON_SOCKET, database: NIX_DATABASE_FILE },
  })
  const agent = scene.stage.start('agent', 'agent', '--config', config)
  const { node } = await agent.next(({ msg }) => msg === 'ready')
  return { seen: [`node ${String(node)}`], facts: { node } }
}

async function issue(scene: Scene): Promise<Told> {
  const { audience } = UNITS.orders
  const api = scene.stage.start(
    ...(['api', 'bagcheck', 'demo', 'api'] as const),
    ...['--issuer', scene.issuer, '--audience', audience],
  )
  const ready = await api.next(({ event }) => event === 'ready')
  scene.apiUrl = String(ready['url'])
  scene.orders = scene.startOrders('orders')
  const token = await nextToken(scene.orders)
  scene.decision = String(token['decision'])
  return {
    seen: [
      `decision ${scene.decision}, entry ${String(token['logIndex'])} in the log`,
      `for role orders, good for ${TTL_SECONDS} s, bound to a key of that process`,
    ],
    facts: token,
  }
}

async function verify(scene: Scene): Promise<Told> {
  const call = await scene.ordersService.next(({ event }) => event === 'api')
  if (call['status'] !== 200) throw notAsTold('the relying party refused the token', call)
  return {
    seen: [`subject ${String(call['subject'])}`, `closure ${String(call['closure'])}`],
    facts: call,
  }
}

async function renew(scene: Scene): Promise<Told> {
  const orders = scene.ordersService
  const issued = await nextToken(orders)
  const renewals: ActorEvent[] = []
  let from = orders.since(0).indexOf(issued) + 1
  while (renewals.length < 2) {
    const token = await orders.next(({ event }) => event === 'token', {
      from,
      timeoutMs: ANSWER_MS,
    })
    if (token['renewed'] !== true) throw notAsTold('a token was issued instead of renewed', token)
    from = orders.since(0).indexOf(token) + 1
    renewals.push(token)
  }
  const times = [issued, ...renewals].map(({ at }) => Number(at))
  const gaps = times.slice(1).map((at, index) => ((at - (times[index] ?? at)) / 1000).toFixed(1))
  return { seen: [`renewed after ${gaps.join(' s and ')} s`], facts: { renewals } }
}

function writeJson(file: string, value: unknown): void {
  rmSync(file, { force: true })
  writeFileSync(file, JSON.stringify(value), { mode: 0o600 })
}
