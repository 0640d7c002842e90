// A JWT-SVID that is on its way when its bag is denied for something else.
import { generateKeyPairSync } from 'node:crypto'
import { expect, test } from 'vitest'
import { BrokerProblem } from '../../../src/front/broker-client.ts'
import { Denials } from '../../../src/front/denials.ts'
import type { IssueContext } from '../../../src/front/issue.ts'
import { signingKey } from '../../../src/front/jws.ts'
import { Outcomes } from '../../../src/front/outcomes.ts'
import { issueJwtSvid } from '../../../src/front/spiffe/jwt-svid.ts'
import { readInstance } from '../../../src/measure/instance.ts'

const own = readInstance(process.pid)
const other = { ...own, pid: own.pid + 1 }
const unit = {
  launcher: 'systemd',
  name: 'a.service',
  cgroup: '/a.service',
  contract: null,
  container: null,
  service: null,
}
const denial = new BrokerProblem(403, {
  ...{ error: 'access_denied', error_description: 'no', code: 'FILE_NOT_IN_CLOSURE' },
})

function world(meanwhile: (outcomes: Outcomes) => void): IssueContext {
  const store = { denials: [], save: () => undefined }
  const outcomes = new Outcomes(store, Date.now, () => undefined)
  const context = {
    node: { node: 'n', nodeClass: 'c', expiresAt: 1 },
    key: signingKey(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey),
    state: { nextCounter: () => 1 },
    broker: {
      challenge: () => Promise.resolve({ nonce: 'x', policyVersion: 1 }),
      jwtSvid: () => {
        meanwhile(outcomes)
        return Promise.resolve({ svid: 's', spiffeId: 'spiffe://d/role/a', decision: 'd' })
      },
    },
    roots: { refreshPolicy: () => undefined, fitting: () => [], trustDomain: 'd' },
    ...{ denials: new Denials(Date.now), outcomes, now: Date.now },
    ...{ installation: 'demo', issuer: 'http://b', trustRootPin: 'a'.repeat(64) },
    measure: () => Promise.resolve({ unit, processes: [], host: {}, measuredAtMs: Date.now() }),
    check: () => Promise.resolve(),
    agent: () => Promise.resolve({}),
  }
  return context as unknown as IssueContext
}

const deny = (outcomes: Outcomes, cgroup: string): void =>
  outcomes.failed(
    {
      ...{ instance: other, audience: 'b', ttlSeconds: null, profile: null },
      ...{ workloadKey: null, previousDecision: null },
    },
    { unit: { ...unit, launcher: 'systemd', cgroup } },
    denial,
  )

test('is not handed out when another process of its unit was denied meanwhile', async () => {
  const context = world((outcomes) => deny(outcomes, unit.cgroup))
  await expect(issueJwtSvid({ instance: own, audience: 'a' }, context)).rejects.toMatchObject({
    refusal: { problem: { code: 'FILE_NOT_IN_CLOSURE' } },
  })
})

test('is handed out when somebody else was denied', async () => {
  const context = world((outcomes) => deny(outcomes, '/b.service'))
  const svid = await issueJwtSvid({ instance: own, audience: 'a' }, context)
  expect(svid.svid).toBe('s')
})
