// Observations, and every way in which one might be turned into a token.
// What agents and admins get is read as it comes.
// oxlint-disable typescript/no-explicit-any
import { OBSERVATION_SCHEMA, OBSERVATION_TYP } from '@bagcheck/api'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { checkEvidence, type EvidenceExpectation, type Identified } from '../../src/evidence.ts'
import { commitObservationAsAllow } from './observation-forgery.ts'
import {
  AUDIENCE,
  BEARER_AUDIENCE,
  createInstallation,
  type EvidenceChange,
  type Installation,
  type TestNode,
} from './installation.ts'

let self: Installation
let node: TestNode

beforeEach(async () => {
  self = await createInstallation()
  await self.publish({ observe: true })
  await self.request('POST', '/v1/attestations', self.closure.request)
  node = await self.enrol()
})
afterEach(() => self[Symbol.asyncDispose]())

/** What an agent signs about a unit that asked for nothing. */
const observation = (change: EvidenceChange = {}, of: TestNode = node): Promise<string> =>
  self.evidence(of, {
    purpose: 'observe',
    ...change,
    header: { typ: OBSERVATION_TYP, ...change.header },
    edit: (e) => {
      e.schema = OBSERVATION_SCHEMA
      for (const wish of ['profile', 'workloadKey', 'previousDecision']) delete e[wish]
      change.edit?.(e)
    },
  })

async function observe(text: string): Promise<{ status: number; body: any }> {
  const response = await self.request('POST', '/v1/observations', { observation: text })
  return { status: response.status, body: await response.json() }
}

const exchanged = async (text: string, audience = AUDIENCE): Promise<[number, unknown]> => {
  const response = await self.token(text, audience)
  const body = (await response.json()) as Record<string, unknown>
  expect(body['access_token']).toBeUndefined()
  return [response.status, body['code']]
}

const decisions = async (query = ''): Promise<any[]> => {
  const answer = await self.request('GET', `/v1/decisions${query}`, undefined, true)
  return ((await answer.json()) as { decisions: unknown[] }).decisions
}

describe('an observation', () => {
  test('is judged, logged as what it is, counted, and found again; nothing is issued', async () => {
    const { status, body } = await observe(await observation())
    expect([status, body]).toEqual([
      200,
      {
        ...{ id: expect.any(String), log_index: expect.any(Number) },
        ...{ would_allow: true, role: 'orders', reasons: [] },
      },
    ])
    expect(await decisions()).toEqual([
      expect.objectContaining({
        ...{ id: body.id, purpose: 'observe', allow: false, wouldAllow: true, unit: 'orders' },
        ...{ role: 'orders', audience: AUDIENCE, expiresAt: null, node: node.id },
        closureDigest: self.closure.manifest.digest,
      }),
    ])
    const metrics = await (await self.request('GET', '/metrics')).text()
    expect(metrics).toContain('observations_total{verdict="would_allow"} 1\n')
    expect(metrics).toContain('tokens_issued_total 0\n')
    const entry = await self.request('GET', `/v1/log/entries/${body.log_index}`)
    expect(await entry.json()).toMatchObject({ kind: 'observation', ref: body.id })
    await self.restart() // reads and checks the whole log
    expect(await decisions('?kind=observation')).toHaveLength(1)
    expect(await decisions('?kind=decision')).toEqual([])
  })

  test('says what would be denied and why, also for an audience that wants a key', async () => {
    const edit = (e: any): void =>
      e.facts.processes[0].files.push({
        ...e.facts.processes[0].executable,
        path: '/tmp/x.so',
        isStoreFile: false,
      })
    const { status, body } = await observe(await observation({ edit }))
    expect([status, body.would_allow]).toEqual([200, false])
    expect(body.reasons[0]).toMatchObject({ code: expect.stringMatching(/^FILE_NOT_/) })
    expect(body.reasons.map(({ code }: { code: string }) => code)).not.toContain('KEY_REQUIRED')
    expect((await decisions())[0]).toMatchObject({
      wouldAllow: false,
      allow: false,
      purpose: 'observe',
    })
  })

  test('of a unit that no policy wants observed is refused and not logged', async () => {
    const foreign = await observation({ edit: (e) => (e.facts.unit.name = 'other') })
    expect(await observe(foreign)).toMatchObject({
      status: 403,
      body: { code: 'OBSERVATION_UNWANTED' },
    })
    const { sha256 } = self.policy({ observe: true })
    await self.publish({ version: 2, prev: sha256, observe: false })
    expect((await observe(await observation())).body.code).toBe('OBSERVATION_UNWANTED')
    expect(await decisions()).toEqual([])
  })

  test('of a node that sends too many gives way, and decisions go on', async () => {
    const codes = new Set<string>()
    for (let n = 0; n < 70; n += 1)
      codes.add((await observe(await observation())).body.code ?? 'logged')
    expect([...codes].toSorted()).toEqual(['OBSERVATION_LIMIT', 'logged'])
    expect(await decisions('?limit=500')).toHaveLength(64)
    expect((await self.token(await self.evidence(node))).status).toBe(200)
    const other = await self.enrol()
    expect((await observe(await observation({}, other))).status).toBe(200)
  })
})

/** Were this to compile, what was stated for an observation could be checked as evidence. */
export const typed = (identified: Identified<'observe'>, expected: EvidenceExpectation): unknown =>
  // @ts-expect-error identified for another purpose
  checkEvidence(identified, expected)

describe('no token comes of an observation', () => {
  test.each([AUDIENCE, BEARER_AUDIENCE])('exchanged at /token for %s', async (audience) => {
    const edit = (e: any): void => void (e.facts.audience = audience)
    expect(await exchanged(await observation({ edit }), audience)).toEqual([400, 'EVIDENCE_HEADER'])
  })

  test('that calls itself evidence, in whatever part', async () => {
    const header = { typ: 'bagcheck-evidence+jwt' }
    expect(await exchanged(await observation({ header }))).toEqual([400, 'EVIDENCE_MALFORMED'])
    const dressed = (e: any): void => {
      e.schema = 'bagcheck.evidence/v1'
      e.facts.purpose = 'issue'
      Object.assign(e, { profile: null, workloadKey: null, previousDecision: null })
    }
    // Its nonce was given for observing.
    const [status, code] = await exchanged(await observation({ header, edit: dressed }))
    expect([status, code]).toEqual([400, 'NONCE_INVALID'])
  })

  test('whose id is exported as if it were a token', async () => {
    const { body } = await observe(await observation())
    const answer = await self.request('GET', `/v1/evidence/${body.id}`, undefined, true)
    expect(answer.status).toBe(404)
  })

  test('named as the decision that a renewal continues, beyond what the renewal earns itself', async () => {
    const { body } = await observe(await observation())
    const renewal = await self.evidence(node, {
      purpose: 'renew',
      edit: (e) => {
        e.previousDecision = body.id
        e.facts.unit.name = 'other'
      },
    })
    expect((await exchanged(renewal))[0]).toBe(403)
  })

  test('written into the tables as an allow', async () => {
    await expect(commitObservationAsAllow(self.broker, node.id)).rejects.toThrow()
    expect(await decisions()).toEqual([])
  })
})

describe('evidence', () => {
  test('for a token is no observation, nor is its nonce one for it', async () => {
    expect((await observe(await self.evidence(node))).body.code).toBe('EVIDENCE_HEADER')
    const nonce = await self.challenge(node.id, 'issue')
    expect((await observe(await observation({ nonce }))).body.code).toBe('NONCE_INVALID')
  })

  test('that is replayed, forged or another node’s is refused here as there', async () => {
    const once = await observation()
    expect((await observe(once)).status).toBe(200)
    expect((await observe(once)).body.code).toBe('NONCE_REUSED')
    const stranger = await self.enrol()
    const forged = await observation({ key: stranger.key })
    expect((await observe(forged)).body.code).toBe('EVIDENCE_SIGNATURE')
    const wide = await observation({ edit: (e) => (e.workloadKey = 'x') })
    expect((await observe(wide)).body.code).toBe('EVIDENCE_SCHEMA')
  })

  test('with a counter that an observation used shows a cloned key', async () => {
    expect((await observe(await observation())).status).toBe(200)
    node.counter -= 1
    const [status, code] = await exchanged(await self.evidence(node))
    expect([status, code]).toEqual([401, 'NODE_KEY_CLONED'])
    expect(
      (await self.request('POST', '/v1/challenge', { node: node.id, purpose: 'observe' })).status,
    ).toBe(401)
  })
})
