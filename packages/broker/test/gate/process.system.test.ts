// The executable itself: start and stop, sockets, TLS, crashes, both databases.
import { createConnection } from 'node:net'
import { chmodSync, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { createClient } from '@bagcheck/api'
import { postgresAvailable, selfSignedCertificate, startPostgres } from '@bagcheck/testkit'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { allowedDecisionsOf, bodyOf, expectRefusal } from './answers.ts'
import { overSocket, startBroker, type BrokerProcess } from './broker-process.ts'
import { attestedClosure, AUDIENCE, createInstallation, type Installation } from './installation.ts'

const nowSeconds = (): number => Math.floor(Date.now() / 1000)
const create = (store?: Record<string, string>): Promise<Installation> =>
  createInstallation({ closed: true, startSeconds: nowSeconds(), ...(store && { store }) })

let self: Installation
beforeEach(async () => {
  self = await create()
})
afterEach(() => self[Symbol.asyncDispose]())

/** Speaks to a process from here on. */
function use(broker: BrokerProcess): void {
  self.transport = overSocket(broker.admin)
  self.nowMs = Date.now()
}

describe('the executable', () => {
  test('serves, stops at SIGTERM, and goes on where it stopped', async () => {
    const first = await startBroker(self)
    use(first)
    await self.ready()
    const node = await self.enrol()
    const before = await bodyOf(await self.token(await self.evidence(node)))
    const jwks = await bodyOf(await self.request('GET', '/jwks'))
    first.child.kill('SIGTERM')
    expect(await first.gone).toBe(0)
    expect(existsSync(first.admin)).toBe(false)

    await using second = await startBroker(self)
    use(second)
    expect(await bodyOf(await self.request('GET', '/jwks'))).toEqual(jwks)
    const after = await bodyOf(await self.token(await self.evidence(node)))
    expect(after.log_index).toBe(before.log_index + 1)
  })

  test('makes its sockets and keys for nobody else', async () => {
    await using broker = await startBroker(self)
    const mode = (file: string): number => statSync(file).mode & 0o777
    expect(mode(broker.admin)).toBe(0o600)
    const { stateDir } = self.config
    expect(mode(stateDir)).toBe(0o700)
    for (const name of ['token-key.pem', 'nonce.key', 'bagcheck.sqlite'])
      expect([name, mode(join(stateDir, name))]).toEqual([name, 0o600])
  })

  test('refuses to start with a secret that others can read', async () => {
    await (await startBroker(self))[Symbol.asyncDispose]()
    for (const file of [
      self.config.logKey,
      self.config.decisionKey,
      join(self.config.stateDir, 'token-key.pem'),
      join(self.config.stateDir, 'nonce.key'),
    ]) {
      chmodSync(file, 0o644)
      await expect(startBroker(self)).rejects.toThrow(/\(3\).*KEY_FILE_MODE/s)
      chmodSync(file, 0o600)
    }
  })

  test('refuses to start with keys or a pin that the trust root does not know', async () => {
    const other = await create()
    const { logKey, decisionKey } = other.config
    await expect(startBroker(self, { logKey })).rejects.toThrow(/CONFIG_KEY_ROLE/)
    await expect(startBroker(self, { decisionKey })).rejects.toThrow(/CONFIG_KEY_ROLE/)
    const trustRoot = { ...self.config.trustRoot, pin: other.pin }
    await expect(startBroker(self, { trustRoot })).rejects.toThrow(/TRUST_ROOT_PIN/)
    await expect(startBroker(self, { installation: 'prod' })).rejects.toThrow(/CONFIG_INVALID/)
    await other[Symbol.asyncDispose]()
  })

  test('does not start without its certificate, and has written nothing by then', async () => {
    const tls = { cert: 'chain.pem', key: 'key.pem' }
    const listen = { host: '127.0.0.1', port: 0, tls }
    await expect(startBroker(self, { listen, stateDir: 'untouched' })).rejects.toThrow(
      /CONFIG_FILE: listen.tls.cert: expected a readable file ".*chain.pem"/,
    )
    expect(existsSync(join(self.dir, 'untouched'))).toBe(false)
  })

  test('leaves the socket of a running broker alone and replaces a dead one', async () => {
    const broker = await startBroker(self)
    await expect(startBroker(self)).rejects.toThrow(/SOCKET_IN_USE|STORE_/)
    broker.child.kill('SIGKILL')
    await broker.gone
    expect(existsSync(broker.admin)).toBe(true)
    await (await startBroker(self))[Symbol.asyncDispose]()
  })

  test('has no admin route on its public socket', async () => {
    await using broker = await startBroker(self)
    for (const path of ['/v1/decisions', '/v1/nodes', '/v1/evidence/x']) {
      const response = await fetch(`${broker.listen}${path}`)
      await expectRefusal(response, 404, 'REQUEST_NOT_FOUND')
    }
    const client = createClient({ socket: broker.admin })
    expect(await client.nodes()).toEqual({ nodes: [] })
  })

  test('listens on a unix socket that everybody may open, if told', async () => {
    const socket = join(self.dir, 'public.sock')
    await using broker = await startBroker(self, { listen: { socket } })
    expect(broker.listen).toBe(`unix:${socket}`)
    expect(statSync(socket).mode & 0o777).toBe(0o666)
    expect((await createClient({ socket }).rootChain()).pin).toBe(self.pin)
  })

  test('serves TLS with the certificate it is given, and plain HTTP to nobody there', async () => {
    const { cert, key } = selfSignedCertificate()
    writeFileSync(join(self.dir, 'cert.pem'), cert)
    writeFileSync(join(self.dir, 'key.pem'), key, { mode: 0o600 })
    const tls = { cert: join(self.dir, 'cert.pem'), key: join(self.dir, 'key.pem') }
    await using broker = await startBroker(self, { listen: { host: '0.0.0.0', port: 0, tls } })
    const url = broker.listen.replace('0.0.0.0', '127.0.0.1')
    expect(url).toMatch(/^https:/)
    expect((await createClient({ url, ca: cert }).rootChain()).pin).toBe(self.pin)
    const unreachable = expect.objectContaining({ code: 'BROKER_UNREACHABLE' })
    await expect(createClient({ url }).rootChain()).rejects.toThrow(unreachable)
    const plain = createClient({ url: url.replace('https', 'http') })
    await expect(plain.rootChain()).rejects.toThrow(unreachable)
  })

  test('closes a connection whose body never ends when it stops', async () => {
    const broker = await startBroker(self)
    const { port } = new URL(broker.listen)
    const socket = createConnection({ host: '127.0.0.1', port: Number(port) })
    socket.on('error', () => undefined) // being cut off is the point
    socket.write('POST /v1/challenge HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n')
    socket.write('content-length: 100\r\n\r\n{')
    await new Promise((resolve) => socket.once('connect', resolve))
    broker.child.kill('SIGTERM')
    expect(await broker.gone).toBe(0)
  })

  test('logs neither tokens, nor evidence, nor nonces', async () => {
    await using broker = await startBroker(self)
    use(broker)
    await self.ready()
    const node = await self.enrol()
    const nonce = await self.challenge(node.id)
    const evidence = await self.evidence(node, { nonce })
    const { access_token: token } = await bodyOf(await self.token(evidence))
    await self.token(evidence)
    await self.token(await self.evidence(node, { edit: (e) => (e.iat -= 100) }))
    await self.token('nonsense')
    const log = broker.stderr()
    expect(log).toContain('node enrolled')
    const secrets = [nonce, evidence.split('.')[2]!, token.split('.')[2]]
    for (const secret of secrets) expect(log).not.toContain(secret)
    expect(log).not.toMatch(/eyJ|BEGIN|PRIVATE/)
  })

  test.each([
    [[], 2, 'usage:'],
    [['--nonsense'], 2, 'usage:'],
    [['--config', '/nonexistent'], 3, 'CONFIG_FILE'],
  ])('started with %j exits with %i', async (args, code, said) => {
    const { spawnSync } = await import('node:child_process')
    const main = join(import.meta.dirname, '../../src/main.ts')
    const run = spawnSync(process.execPath, ['-C', '@bagcheck/source', main, ...args])
    expect([run.status, run.stdout.toString()]).toEqual([code, ''])
    expect(run.stderr.toString()).toContain(said)
  })
})

const STORES = [
  ['SQLite', () => Promise.resolve(null)],
  ...(postgresAvailable() ? [['PostgreSQL', startPostgres] as const] : []),
] as const

describe.each(STORES)('on %s', (_, startStore) => {
  let server: Awaited<ReturnType<typeof startStore>>
  beforeAll(async () => {
    server = await startStore()
  })
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]()
  })

  // Points before the commit is durable leave nothing; points after it leave a decision without a token.
  test.each([
    ['before-log', 0],
    ['before-transaction', 0],
    ['after-insert', 0],
    ['before-commit', 0],
    ['after-commit', 1],
    ['after-checkpoint', 1],
    ['before-mint', 1],
    ['after-mint', 1],
  ])('a broker killed at %s has answered no token and has logged %i', async (point, logged) => {
    await self[Symbol.asyncDispose]()
    const name = point.replaceAll('-', '_')
    self = await create(server ? { postgres: await server.createDatabase(name) } : undefined)
    const setUp = await startBroker(self)
    use(setUp)
    await self.ready()
    const node = await self.enrol()
    await setUp[Symbol.asyncDispose]()

    const crashing = await startBroker(self, { testingOnlyCrashAt: point })
    use(crashing)
    const evidence = await self.evidence(node)
    await expect(self.token(evidence)).rejects.toThrow()
    expect(await crashing.gone).toBe('SIGKILL')

    // Starting verifies the whole log; what was logged cannot be had a second time.
    await using restarted = await startBroker(self)
    use(restarted)
    expect(await allowedDecisionsOf(self, node)).toBe(logged)
    const again = await self.token(evidence)
    expect(again.status).toBe(logged === 1 ? 400 : 200)
    expect(await allowedDecisionsOf(self, node)).toBe(1)
    expect((await self.token(await self.evidence(node))).status).toBe(200)
  })
})

describe.runIf(postgresAvailable())('two brokers on one PostgreSQL', () => {
  test('share policy, nodes, nonces, counters and one log', async () => {
    await using server = await startPostgres()
    await self[Symbol.asyncDispose]()
    self = await create({ postgres: await server.createDatabase('shared') })
    await using one = await startBroker(self)
    await using two = await startBroker(self, { adminSocket: join(self.dir, 'two.sock') })
    use(one)
    await self.ready()
    const node = await self.enrol()
    const evidence = await self.evidence(node)
    expect((await self.token(evidence)).status).toBe(200)
    use(two)
    // The second has not polled for the policy yet, or has; it must not matter for long.
    await expect
      .poll(async () => (await self.request('GET', '/v1/policy')).status, { timeout: 10_000 })
      .toBe(200)
    await expectRefusal(await self.token(evidence), 400, 'NONCE_REUSED')
    const fresh = await bodyOf(await self.token(await self.evidence(node)))
    expect(fresh).toMatchObject({ token_type: 'DPoP', log_index: expect.any(Number) })
    const clone = await self.evidence({ ...node, counter: 0 })
    await expectRefusal(await self.token(clone), 401, 'NODE_KEY_CLONED')
    use(one)
    await expectRefusal(await self.token(await self.evidence(node)), 401, 'NODE_BANNED')
    await expectRefusal(
      await self.request('POST', '/v1/challenge', { node: node.id, purpose: 'issue' }),
      401,
      'NODE_BANNED',
    )
    // Attested anew at the one, with a fact that the policy does not take: the other hears of it.
    use(one)
    const other = await self.enrol()
    const impure = attestedClosure(self.ci, 'service', { impure: { value: true, source: 'test' } })
    expect((await self.request('POST', '/v1/attestations', impure.request)).status).toBe(200)
    use(two)
    await expect
      .poll(async () => (await self.token(await self.evidence(other))).status, { timeout: 10_000 })
      .toBe(403)
  })

  test('answer 503 while the database is gone, and go on when it is back', async () => {
    await using server = await startPostgres()
    await self[Symbol.asyncDispose]()
    self = await create({ postgres: await server.createDatabase('gone') })
    await using broker = await startBroker(self)
    use(broker)
    await self.ready()
    const node = await self.enrol()
    const evidence = await self.evidence(node)
    await server.crash()
    const response = await self.token(evidence)
    expect(response.status).toBe(503)
    expect((await bodyOf(response)).code).toMatch(/^STORE_/)
    expect((await self.request('GET', '/readyz')).status).toBe(503)
    await server.start()
    const again = async (): Promise<number> => (await self.request('GET', '/readyz')).status
    await expect.poll(again, { timeout: 30_000 }).toBe(200)
    expect((await self.token(await self.evidence(node))).status).toBe(200)
  })
})

test.runIf(postgresAvailable())(
  'rows of PostgreSQL that the log does not bear out end the start, and those that it does are taken',
  async () => {
    await using server = await startPostgres()
    await self[Symbol.asyncDispose]()
    self = await create({ postgres: await server.createDatabase('edited') })
    {
      await using broker = await startBroker(self)
      use(broker)
      await self.ready()
      await self.enrol()
    }
    await server.query(`update node_identity set class = 'trusted'`, 'edited')
    await expect(startBroker(self)).rejects.toThrow('LOG_CORRUPT')
    await server.query(`update node_identity set class = 'demo'`, 'edited')
    await using restarted = await startBroker(self)
    use(restarted)
    expect((await self.request('GET', '/readyz')).status).toBe(200)
  },
)

test('a token exchanged through the client carries the audience it was asked for', async () => {
  await using broker = await startBroker(self)
  use(broker)
  await self.ready()
  const node = await self.enrol()
  const client = createClient({ url: broker.listen })
  const answer = await client.token({ audience: AUDIENCE, evidence: await self.evidence(node) })
  expect(answer.token_type).toBe('DPoP')
  const denied = client.token({ audience: AUDIENCE, evidence: 'a.b.c' })
  await expect(denied).rejects.toMatchObject({
    code: 'BROKER_REFUSED',
    status: 400,
    problem: { code: 'EVIDENCE_MALFORMED', error: 'invalid_grant' },
  })
  expect(readFileSync(join(self.dir, 'root.json'), 'utf8')).toBe(
    (await client.rootChain()).rootChain[0],
  )
})
