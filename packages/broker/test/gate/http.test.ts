import { MAX_EVIDENCE_BYTES, ROUTES } from '@bagcheck/api'
import { leafHash, openCheckpoint, parseHashTile, verifyInclusion } from '@bagcheck/log'
import type { Hono } from 'hono'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createApp, honoPath, routesOf } from '../../src/app.ts'
import { MAX_BODY_BYTES_IN_FLIGHT, BodyBudget } from '../../src/request-body.ts'
import { bodyOf, expectRefusal } from './answers.ts'
import { AUDIENCE, createInstallation, exchangeForm, type Installation } from './installation.ts'

let self: Installation
let app: Hono
beforeAll(async () => {
  self = await createInstallation()
  await self.ready()
  app = createApp(self.broker, 'public')
})
afterAll(() => self[Symbol.asyncDispose]())

const registered = (one: Hono): string[] =>
  one.routes.map(({ method, path }) => `${method} ${path}`).toSorted()
const declared = (routes: typeof ROUTES): string[] =>
  routes.map(({ method, path }) => `${method} ${honoPath(path)}`).toSorted()

describe('the route table', () => {
  test('is what the admin app registers, and nothing else is', () => {
    expect(registered(createApp(self.broker, 'admin'))).toEqual(declared(ROUTES))
  })

  test('without its admin routes is what the public app registers', () => {
    expect(registered(app)).toEqual(declared(ROUTES.filter(({ auth }) => auth !== 'admin')))
    expect(routesOf('public').map(({ auth }) => auth)).not.toContain('admin')
  })

  test('names admin every route that reads decisions, evidence or nodes, bans, or turns authorities', () => {
    const admin = ROUTES.filter(({ auth }) => auth === 'admin').map(({ id }) => id)
    expect(admin.toSorted()).toEqual([
      'activateAuthority',
      'authorities',
      'banNode',
      'decision',
      'decisions',
      'evidence',
      'nodes',
      'prepareAuthority',
      'revokeAuthority',
      'taintAuthority',
    ])
  })

  test('leaves no POST route public but the challenge', () => {
    const open = ROUTES.filter(({ method, auth }) => method === 'POST' && auth === 'public')
    expect(open.map(({ id }) => id)).toEqual(['challenge'])
  })

  test.each(
    ROUTES.filter(({ auth }) => auth === 'admin').map(({ method, path }) => [method, path]),
  )('%s %s does not exist on the public app', async (method, path) => {
    const response = await app.request(path.replaceAll(/\{[a-z]+\}/g, 'x'), { method })
    await expectRefusal(response, 404, 'REQUEST_NOT_FOUND')
  })
})

describe('a request', () => {
  const post = (path: string, body: string, headers: Record<string, string>) =>
    app.request(path, { method: 'POST', body, headers })
  const json = { 'content-type': 'application/json' }
  const form = { 'content-type': 'application/x-www-form-urlencoded' }

  test.each([
    ['no content type', {}],
    ['a form', form],
    ['text', { 'content-type': 'text/plain' }],
    ['another charset', { 'content-type': 'application/json; charset=utf-16' }],
    ['a compressed body', { ...json, 'content-encoding': 'gzip' }],
  ])('with %s where JSON is expected is refused', async (_, headers) => {
    await expectRefusal(await post('/v1/challenge', '{}', headers), 415, 'REQUEST_CONTENT_TYPE')
  })

  test.each([
    ['no JSON', 'x', 'JSON_SYNTAX'],
    ['a member twice', '{"node":"a","node":"b","purpose":"issue"}', 'JSON_DUPLICATE_KEY'],
    ['an unknown member', '{"node":"a","purpose":"issue","tier":3}', 'REQUEST_INVALID'],
    ['a missing member', '{"node":"a"}', 'REQUEST_INVALID'],
    ['another type', '{"node":1,"purpose":"issue"}', 'REQUEST_INVALID'],
  ])('with %s is refused', async (_, body, code) => {
    await expectRefusal(await post('/v1/challenge', body, json), 400, code)
  })

  test.each([
    ['announced', { ...json, 'content-length': '4097' }],
    ['streamed', json],
  ])('with a body above the limit of its route, %s, is refused', async (_, headers) => {
    await expectRefusal(
      await post('/v1/challenge', 'x'.repeat(4097), headers),
      413,
      'REQUEST_TOO_LARGE',
    )
  })

  test('waits for nobody when too many bodies are in flight', async () => {
    const budget = new BodyBudget()
    const crowded = createApp(self.broker, 'public', { budget })
    using _ = budget.reserve(MAX_BODY_BYTES_IN_FLIGHT)
    const response = await crowded.request('/v1/challenge', {
      method: 'POST',
      body: '{}',
      headers: json,
    })
    expect(response.headers.get('retry-after')).toBe('1')
    await expectRefusal(response, 503, 'OVERLOADED')
  })

  test('gives its bytes back, whether it was answered or refused', async () => {
    const budget = new BodyBudget()
    const one = createApp(self.broker, 'public', { budget })
    for (const body of ['{}', 'x', `{"node":"demo","purpose":"issue"}`])
      await one.request('/v1/challenge', { method: 'POST', body, headers: json })
    budget.reserve(MAX_BODY_BYTES_IN_FLIGHT)[Symbol.dispose]()
  })

  test.each(['/livez?x=1', '/v1/policy?wait=1&wait=2', '/v1/policy?wait=-1', '/jwks?wait=1'])(
    'for %s is refused: an unknown query is a wish that nobody grants',
    async (path) => {
      await expectRefusal(await app.request(path), 400, 'REQUEST_INVALID')
    },
  )

  const good = (change: Record<string, string | string[] | null>): string => {
    const parameters = new URLSearchParams(exchangeForm('a.b.c', AUDIENCE))
    for (const [name, value] of Object.entries(change)) {
      parameters.delete(name)
      for (const one of [value ?? []].flat()) parameters.append(name, one)
    }
    return parameters.toString()
  }
  const types = 'urn:ietf:params:oauth:token-type'
  test.each([
    ['two audiences', { audience: [AUDIENCE, AUDIENCE] }, 'REQUEST_TARGET', 'invalid_target'],
    ['a resource', { resource: 'https://a.test' }, 'REQUEST_TARGET', 'invalid_target'],
    ['no audience', { audience: null }, 'REQUEST_INVALID', 'invalid_request'],
    ['an empty audience', { audience: '' }, 'REQUEST_INVALID', 'invalid_request'],
    ['no evidence', { subject_token: null }, 'REQUEST_INVALID', 'invalid_request'],
    ['evidence twice', { subject_token: ['a', 'b'] }, 'REQUEST_INVALID', 'invalid_request'],
    ['a scope', { scope: 'all' }, 'REQUEST_INVALID', 'invalid_request'],
    ['an actor', { actor_token: 'x' }, 'REQUEST_INVALID', 'invalid_request'],
    [
      'another grant',
      { grant_type: 'client_credentials' },
      'REQUEST_GRANT_TYPE',
      'unsupported_grant_type',
    ],
    ['no grant', { grant_type: null }, 'REQUEST_INVALID', 'invalid_request'],
    [
      'another evidence type',
      { subject_token_type: `${types}:saml2` },
      'REQUEST_TOKEN_TYPE',
      'invalid_request',
    ],
    [
      'another token type',
      { requested_token_type: `${types}:refresh_token` },
      'REQUEST_TOKEN_TYPE',
      'invalid_request',
    ],
  ])('for a token with %s is refused', async (_, change, code, error) => {
    const problem = await expectRefusal(await post('/token', good(change), form), 400, code)
    expect(problem['error']).toBe(error)
  })

  test('never gets a stack or a cause in its answer', async () => {
    const response = await post('/token', 'x'.repeat(MAX_EVIDENCE_BYTES + 20_000), form)
    const text = await response.text()
    expect(Object.keys(JSON.parse(text))).toEqual(['error', 'error_description', 'code'])
    expect(text).not.toMatch(/\.ts\b|\n/)
  })
})

describe('the log', () => {
  test('proves every entry to its checkpoint, and its tiles hold the same leaves', async () => {
    const node = await self.enrol()
    for (let i = 0; i < 5; i++) await self.token(await self.evidence(node))
    const note = await (await app.request('/checkpoint')).text()
    const { size, root } = openCheckpoint(note, self.broker.root.log.keys)
    const tile = await app.request(`/tile/0/000.p/${size}`)
    expect(tile.headers.get('cache-control')).toContain('immutable')
    const hashes = parseHashTile(new Uint8Array(await tile.arrayBuffer()), size)
    for (let index = 0; index < size; index++) {
      const entry = await bodyOf(await app.request(`/v1/log/entries/${index}`))
      expect(entry.checkpoint).toBe(note)
      const hash = leafHash(Buffer.from(entry.leaf, 'base64'))
      const proof = entry.proof.map((one: string) => Buffer.from(one, 'base64'))
      verifyInclusion({ leafHash: hash, index, size, root, proof })
      expect(Buffer.from(hashes[index]!)).toEqual(Buffer.from(hash))
    }
  })

  test.each([
    '/v1/log/entries/99999',
    '/v1/log/entries/-1',
    '/v1/log/entries/01',
    '/tile/0/001',
    '/tile/0/../../etc/passwd',
    '/tile/9/000',
  ])('has nothing at %s', async (path) => {
    const response = await app.request(path)
    expect([response.status, (await bodyOf(response)).error]).toEqual([404, 'not_found'])
  })

  test('serves bundles of entries', async () => {
    const response = await app.request('/tile/entries/000.p/1')
    expect(response.headers.get('content-type')).toBe('application/octet-stream')
  })
})

describe('operations', () => {
  test('readiness says what it looked at', async () => {
    const response = await app.request('/readyz')
    expect([response.status, await bodyOf(response)]).toMatchObject([
      200,
      {
        ready: true,
        checks: [
          { name: 'store', ok: true },
          { name: 'clock', ok: true },
          { name: 'policy', ok: true },
        ],
      },
    ])
  })

  test('metrics are well-formed lines', async () => {
    const text = await (await app.request('/metrics')).text()
    for (const line of text.trim().split('\n'))
      expect(line).toMatch(
        /^(# (HELP|TYPE) bagcheck_broker_|bagcheck_broker_\w+(\{(\w+="[^"]+",?)+\})? [\d.e+-]+$)/,
      )
    expect(text).toContain('bagcheck_broker_policy_version 1\n')
  })

  test('the API describes itself', async () => {
    const document = await bodyOf(await app.request('/openapi.json'))
    expect(Object.keys(document.paths)).toHaveLength(new Set(ROUTES.map(({ path }) => path)).size)
  })

  test('the trust root is served with its pin', async () => {
    const answer = await bodyOf(await app.request('/v1/policy/root'))
    expect(answer).toMatchObject({ pin: self.pin, version: 1, rootChain: [expect.any(String)] })
  })
})
