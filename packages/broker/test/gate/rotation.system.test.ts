// Authorities in real processes: killed between the steps of a rotation, and several brokers on one database.
import { X509Certificate, createPublicKey } from 'node:crypto'
import { copyFileSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import type { AuthorityRecord, TrustBundle } from '@bagcheck/api'
import { nodeKey, postgresAvailable, startPostgres } from '@bagcheck/testkit'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { bodyOf } from './answers.ts'
import { overSocket, startBroker, type BrokerProcess } from './broker-process.ts'
import {
  createInstallation,
  SVID_AUDIENCE,
  type Installation,
  type TestNode,
} from './installation.ts'

const STORES = [
  ['SQLite', () => Promise.resolve(null)],
  ...(postgresAvailable() ? [['PostgreSQL', startPostgres] as const] : []),
] as const

let self: Installation
afterEach(() => self[Symbol.asyncDispose]())
const create = async (store?: Record<string, string>): Promise<void> => {
  const startSeconds = Math.floor(Date.now() / 1000)
  self = await createInstallation({
    closed: true,
    svids: true,
    startSeconds,
    ...(store && { store }),
  })
}

/** Speaks to a process from here on. */
function use(broker: BrokerProcess): void {
  self.transport = overSocket(broker.admin)
  self.nowMs = Date.now()
}
const key = nodeKey()
const publicKey = createPublicKey(key.key)
  .export({ type: 'spki', format: 'der' })
  .toString('base64')
const evidenceOf = (node: TestNode): Promise<string> => {
  self.nowMs = Date.now()
  return self.evidence(node, {
    edit: (evidence) => {
      evidence.facts.audience = SVID_AUDIENCE
      evidence.workloadKey = key.thumbprint
    },
  })
}
const x509 = async (node: TestNode): Promise<Response> =>
  self.request('POST', '/v1/svids', { type: 'x509', evidence: await evidenceOf(node), publicKey })
const leafOf = async (response: Response): Promise<X509Certificate> => {
  const body = await bodyOf(response)
  expect([response.status, body.code]).toEqual([200, undefined])
  return new X509Certificate(Buffer.from(body.certificates[0], 'base64'))
}
const bundle = async (): Promise<TrustBundle> => bodyOf(await self.request('GET', '/bundle'))
const verifies = (leaf: X509Certificate, { keys }: TrustBundle): boolean =>
  keys.some((one) => {
    if (one.use !== 'x509-svid') return false
    const root = new X509Certificate(Buffer.from(one.x5c[0]!, 'base64'))
    return leaf.checkIssued(root) && leaf.verify(root.publicKey)
  })
const list = async (): Promise<AuthorityRecord[]> =>
  (await bodyOf(await self.request('GET', '/v1/authorities'))).authorities

describe.each(STORES)('on %s', (_, startStore) => {
  let server: Awaited<ReturnType<typeof startStore>>
  beforeAll(async () => {
    server = await startStore()
  })
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]()
  })

  // What the log says is what there is. A key that it does not name signed nothing, and is gone.
  test.each([
    ['prepare', 'after-authority-key', ['active']],
    ['prepare', 'before-commit', ['active']],
    ['prepare', 'after-commit', ['active', 'prepared']],
    ['prepare', 'after-authority-prepare', ['active', 'prepared']],
    ['activate', 'before-commit', ['active', 'prepared']],
    ['activate', 'after-commit', ['old', 'active']],
    ['activate', 'after-authority-activate', ['old', 'active']],
  ])('a broker killed during %s, at %s, goes on from there', async (verb, point, states) => {
    const name = `${verb}_${point.replaceAll('-', '_')}`
    await create(server ? { postgres: await server.createDatabase(name) } : undefined)
    const setUp = await startBroker(self)
    use(setUp)
    await self.ready()
    const node = await self.enrol()
    const before = await leafOf(await x509(node))
    const prepare = (): Promise<Response> =>
      self.request('POST', '/v1/authorities', { kind: 'x509' })
    if (verb === 'activate') expect((await prepare()).status).toBe(201)
    const { spiffe_sequence: sequence } = await bundle()
    await setUp[Symbol.asyncDispose]()

    const crashing = await startBroker(self, { testingOnlyCrashAt: point })
    use(crashing)
    const prepared = (await list()).find(({ state }) => state === 'prepared')
    const step =
      verb === 'prepare'
        ? prepare()
        : self.request('POST', `/v1/authorities/${prepared?.id}/activate`, {})
    await expect(step).rejects.toThrow()
    expect(await crashing.gone).toBe('SIGKILL')

    await using restarted = await startBroker(self)
    use(restarted)
    const x509s = async (): Promise<AuthorityRecord[]> =>
      (await list()).filter(({ kind }) => kind === 'x509')
    expect((await x509s()).map(({ state }) => state)).toEqual(states)
    expect((await list()).every(({ local }) => local)).toBe(true)
    const files = readdirSync(join(self.config.stateDir, 'authorities'))
    expect(files.toSorted()).toEqual((await list()).map(({ id }) => `${id}.pem`).toSorted())
    const now = await bundle()
    expect(now.spiffe_sequence).toBeGreaterThanOrEqual(sequence)
    const after = await leafOf(await x509(node))
    expect([verifies(before, now), verifies(after, now)]).toEqual([true, true])
    expect(after.issuer === before.issuer).toBe(states[0] === 'active')

    // Taken to its end, the step is one entry and the key signs.
    if (!states.includes('prepared') && states[0] === 'active')
      expect((await prepare()).status).toBe(201)
    const next = (await x509s()).find(({ state }) => state === 'prepared')
    if (next !== undefined)
      expect((await self.request('POST', `/v1/authorities/${next.id}/activate`, {})).status).toBe(
        200,
      )
    expect((await x509s()).map(({ state }) => state)).toEqual(['old', 'active'])
    expect((await leafOf(await x509(node))).issuer).not.toBe(before.issuer)
  })

  test('short lives rotate by themselves while SVIDs go on being issued and verified', async () => {
    await create(server ? { postgres: await server.createDatabase('short') } : undefined)
    await using broker = await startBroker(self, { spiffe: { authorityTtlSeconds: 10 } })
    use(broker)
    await self.ready()
    const node = await self.enrol()
    const issuers = new Set<string>()
    let sequence = 0
    while (issuers.size < 3) {
      const leaf = await leafOf(await x509(node))
      const seen = await bundle()
      expect(verifies(leaf, seen)).toBe(true)
      expect(leaf.validToDate.getTime()).toBeLessThanOrEqual(Date.now() + 11_000)
      expect(seen.spiffe_sequence).toBeGreaterThanOrEqual(sequence)
      sequence = seen.spiffe_sequence
      issuers.add(leaf.issuer)
      await setTimeout(500)
    }
  })
})

describe.runIf(postgresAvailable())('two brokers on one PostgreSQL', () => {
  test('serve one bundle, with the authorities of both, and heed what the other taints', async () => {
    await using server = await startPostgres()
    await create({ postgres: await server.createDatabase('shared') })
    await using one = await startBroker(self)
    use(one)
    await self.ready()
    const node = await self.enrol()
    const byOne = await leafOf(await x509(node))
    const nonceKey = join(self.config.stateDir, 'nonce.key')
    const stateDir = join(self.dir, 'state-two')
    mkdirSync(stateDir, { mode: 0o700 })
    copyFileSync(nonceKey, join(stateDir, 'nonce.key'))
    await using two = await startBroker(self, { adminSocket: join(self.dir, 'two.sock'), stateDir })
    use(two)
    const byTwo = await leafOf(await x509(node))
    expect(byTwo.issuer).not.toBe(byOne.issuer)
    const texts = async (): Promise<string[]> => {
      const answers: string[] = []
      for (const broker of [one, two]) {
        use(broker)
        answers.push(await (await self.request('GET', '/bundle')).text())
      }
      return answers
    }
    const agree = async (): Promise<void> => {
      await expect.poll(async () => new Set(await texts()).size, { timeout: 20_000 }).toBe(1)
    }
    await agree()
    const both = await bundle()
    expect([verifies(byOne, both), verifies(byTwo, both)]).toEqual([true, true])
    expect(both.keys).toHaveLength(4)

    // Over the socket of the second, the authority of the first.
    use(two)
    const foreign = (await list()).find(({ kind, local }) => kind === 'x509' && !local)
    const taint = (verb: string): Promise<Response> =>
      self.request('POST', `/v1/authorities/${foreign?.id}/${verb}`, { reason: 'stolen' })
    expect((await self.request('POST', `/v1/authorities/${foreign?.id}/activate`, {})).status).toBe(
      409,
    )
    expect((await taint('taint')).status).toBe(200)
    use(one)
    const next = await leafOf(await x509(node))
    expect(next.issuer).not.toBe(byOne.issuer)
    use(two)
    expect((await taint('revoke')).status).toBe(200)
    await agree()
    const after = await bundle()
    expect(after.spiffe_sequence).toBeGreaterThan(both.spiffe_sequence)
    expect([verifies(byOne, after), verifies(byTwo, after), verifies(next, after)]).toEqual([
      ...[false, true, true],
    ])
  })
})
