import { execFile, spawn } from 'node:child_process'
import { createHash, generateKeyPairSync, randomBytes } from 'node:crypto'
import {
  chmodSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { signingKey, signJws } from '../src/front/jws.ts'
import { startAgent, parseConfig, type RunningAgent } from '../src/index.ts'
import { FakeBroker, PIN } from './fixture/fake-broker.ts'
import { call, fetchText, watch } from './fixture/client.ts'
import { inPrivateRoot } from './fixture/private-root.ts'

const workload = signingKey(generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)
const AUDIENCE = 'https://api.demo.test'

let directory: string
let broker: FakeBroker
let agent: RunningAgent | undefined
const lines: string[] = []

// By the way of kernels before 6.5, which is as strict, and by that of later ones.
let fallback = false

async function start(trustRootPin = PIN): Promise<void> {
  const url = await broker.listen()
  writeFileSync(join(directory, 'join.json'), '{"join":"token"}')
  const config = parseConfig(
    JSON.stringify({
      installation: 'demo',
      broker: url,
      trustRootPin,
      stateDir: 'state',
      socket: 'run/agent.sock',
      unitsDir: 'run/units',
      joinToken: 'join.json',
      storeCheckIntervalSeconds: 0,
    }),
    directory,
  )
  agent = await startAgent(config, {
    log: (_level, msg, fields) => lines.push(JSON.stringify({ msg, ...fields })),
    signal: AbortSignal.timeout(60_000),
    fallback,
  })
}

const socket = (): string => agent?.socket ?? ''

async function proof(overrides: Record<string, unknown> = {}): Promise<string> {
  const { body } = await call(socket(), 'GET', '/v1/nonce')
  return signJws(
    { typ: 'dpop+jwt', jwk: workload.jwk },
    {
      jti: randomBytes(8).toString('hex'),
      htm: 'POST',
      htu: 'http://agent/v1/token',
      iat: Math.floor(Date.now() / 1000),
      nonce: body['nonce'],
      ...overrides,
    },
    workload,
  )
}

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'bagcheck-agent-'))
  broker = new FakeBroker()
  lines.length = 0
})

afterEach(async () => {
  await agent?.[Symbol.asyncDispose]()
  agent = undefined
  await broker.close()
  rmSync(directory, { recursive: true })
})

describe.runIf(inPrivateRoot()).each([
  { source: 'SO_PEERPIDFD', old: false },
  { source: 'pidfd_open', old: true },
])('an agent before a broker, whose callers are pinned by $source', ({ old }) => {
  beforeEach(() => {
    fallback = old
  })

  test('enrols once, proves its key, and keeps its state to itself', async () => {
    await start()
    expect(agent?.node).toBe('demo-1')
    expect(broker.enrolments).toEqual([
      {
        joinToken: '{"join":"token"}',
        holds: true,
        payload: {
          aud: expect.stringMatching(/^http:/),
          iat: expect.any(Number),
          joinToken: createHash('sha256').update('{"join":"token"}').digest('hex'),
        },
      },
    ])
    expect(statSync(join(directory, 'state')).mode & 0o777).toBe(0o700)
    for (const file of ['node.key', 'node.json', 'ledger.sqlite'])
      expect(statSync(join(directory, 'state', file)).mode & 0o777).toBe(0o600)
    expect(statSync(socket()).mode & 0o777).toBe(0o666)
    expect(statSync(join(directory, 'run')).mode & 0o777).toBe(0o755)
  })

  test('states evidence about the caller, bound to the key that the caller proved', async () => {
    await start()
    const { status, body } = await call(socket(), 'POST', '/v1/token', {
      audience: AUDIENCE,
      ttlSeconds: 60,
      profile: 'api',
      dpopProof: await proof(),
    })
    expect(status).toBe(200)
    expect(body).toEqual({
      accessToken: 'token-1',
      tokenType: 'DPoP',
      expiresAt: expect.any(Number),
      audience: AUDIENCE,
      decision: 'decision-1',
      logIndex: 1,
      renewed: false,
    })
    const [evidence] = broker.evidence
    expect(evidence).toMatchObject({
      iss: 'demo-1',
      installation: 'demo',
      trustRoot: PIN,
      counter: 1,
      profile: 'api',
      workloadKey: workload.thumbprint,
      previousDecision: null,
      instance: { pid: process.pid },
      facts: {
        audience: AUDIENCE,
        ttlSeconds: 60,
        purpose: 'issue',
        callerPid: process.pid,
        unit: { launcher: 'none', contract: null },
        processes: [{ pid: process.pid, hostRoot: true, hostUserNamespace: true }],
      },
      agent: {
        executable: createHash('sha256').update(readFileSync(process.execPath)).digest('hex'),
      },
    })
  })

  test('keeps its join token from a broker of another trust root', async () => {
    await expect(start('0'.repeat(64))).rejects.toMatchObject({ code: 'TRUST_ROOT_MISMATCH' })
    expect(broker.enrolments).toEqual([])
  })

  test('lets denials of callers without a unit through to the log a few at a time', async () => {
    await start()
    broker.verdict = 'deny'
    // A small program: its file is hashed each time, and a unit may have only so many bytes hashed in a while.
    const ask = `use IO::Socket::UNIX;
      my ($path, $audience) = @ARGV;
      for (1 .. 18) {
        my $agent = IO::Socket::UNIX->new(Peer => $path) or die "agent: $!";
        my $body = qq({"audience":"$audience"});
        print $agent "POST /v1/token HTTP/1.1\\r\\nHost: agent\\r\\nConnection: close\\r\\n",
          "Content-Type: application/json\\r\\nContent-Length: ", length $body, "\\r\\n\\r\\n", $body;
        my $answer = do { local $/; <$agent> };
        my ($status) = $answer =~ m{^HTTP/1.1 (\\d+)};
        my ($code) = $answer =~ /"code":"(\\w+)"/;
        print "$status $code\\n";
      }`
    const said: string[] = []
    const startedAt = Date.now()
    for (let child = 0; child < 3; child += 1) {
      const { stdout } = await promisify(execFile)('perl', ['-e', ask, socket(), AUDIENCE])
      said.push(...stdout.trimEnd().split('\n'))
    }
    const denied = said.filter((answer) => answer === '403 CLOSURE_NOT_APPROVED').length
    const limited = said.filter((answer) => answer === '429 REQUEST_LIMIT').length
    expect(denied + limited).toBe(54)
    expect(broker.evidence).toHaveLength(denied)
    // 32 at once, then one a minute, however slow the machine is.
    expect(denied).toBeGreaterThanOrEqual(32)
    expect(denied).toBeLessThanOrEqual(33 + (Date.now() - startedAt) / 60_000)
    expect(lines.find((line) => line.includes('"no token"'))).toContain('"decision":"d"')
  }, 600_000)

  test('tells its own user the unit of a process, and nobody of one that is not there', async () => {
    await start()
    const unit = (pid: string) => call(socket(), 'GET', `/v1/unit?pid=${pid}`)
    expect(await unit(String(process.pid))).toMatchObject({
      status: 200,
      body: { launcher: 'none', name: '', contract: null },
    })
    for (const pid of ['4194304', '0', '-1', 'x', '']) {
      const { status, body } = await unit(pid)
      expect([status, body['code']]).toEqual([400, 'REQUEST_INVALID'])
    }
  })

  test('tells its metrics to root, and to nobody else', async () => {
    await start()
    await call(socket(), 'POST', '/v1/token', { audience: AUDIENCE })
    broker.denied.set(AUDIENCE, 'TRACED')
    await call(socket(), 'POST', '/v1/token', { audience: AUDIENCE })
    // Audiences that are only asked for make no series.
    const { status, type, text } = await fetchText(socket(), '/metrics')
    expect([status, type]).toEqual([200, 'text/plain; version=0.0.4; charset=utf-8'])
    expect(text).toContain('bagcheck_agent_issued_total 1\n')
    expect(text).toContain('bagcheck_agent_denied_total{code="TRACED"} 1\n')
    expect(text).toMatch(
      new RegExp(`last_success_seconds\\{launcher="none",unit="",audience="${AUDIENCE}"\\} \\d`),
    )
    expect(text).toContain('bagcheck_agent_measurer_up 1\n')
    expect(text).not.toContain('token-1')
    chmodSync(directory, 0o755)
    const asNobody = ['--reuid', '65534', '--regid', '65534', '--clear-groups']
    const ask = `require('node:http').get({ socketPath: process.argv[1], path: process.argv[2] },
      (response) => { console.log(response.statusCode); process.exit() })`
    for (const path of [
      '/metrics',
      ...['unit', 'explain'].map((name) => `/v1/${name}?pid=${process.pid}`),
    ]) {
      const node = [process.execPath, '-e', ask, socket(), path]
      const { stdout } = await promisify(execFile)('setpriv', [...asNobody, ...node])
      expect(stdout.trim()).toBe('400')
    }
  })

  test('explains what it would state now and why the last request came out as it did, without secrets', async () => {
    await start()
    const argv = ['-e', 'setInterval(() => 0, 1000)', 'x', '--password', 'hunter2', 'KEY_TOKEN=abc']
    const child = spawn(process.execPath, argv, { stdio: 'ignore' })
    try {
      const explain = (pid: number) => call(socket(), 'GET', `/v1/explain?pid=${pid}`)
      const first = await explain(child.pid ?? 0)
      expect(first).toMatchObject({
        status: 200,
        body: {
          ...{ pid: child.pid, last: null, lastOf: null, observed: null },
          now: {
            measured: true,
            unit: { launcher: 'none' },
            processes: [{ pid: child.pid }],
            roots: [],
          },
        },
      })
      const text = JSON.stringify(first.body)
      expect(text).toContain('KEY_TOKEN=[redacted]')
      expect(text).not.toMatch(/hunter2|abc/)
      await call(socket(), 'POST', '/v1/token', { audience: AUDIENCE })
      expect((await explain(process.pid)).body).toMatchObject({
        lastOf: 'process',
        last: { allowed: true, audience: AUDIENCE, decision: 'decision-1' },
      })
      broker.denied.set(AUDIENCE, 'TRACED')
      await call(socket(), 'POST', '/v1/token', { audience: AUDIENCE })
      const denied = await explain(process.pid)
      expect(denied.body).toMatchObject({
        last: {
          ...{ allowed: false, audience: AUDIENCE, code: 'TRACED', decision: 'd' },
          offence: { path: realpathSync(process.execPath), kind: 'TRACED' },
        },
      })
      expect(JSON.stringify(denied.body)).not.toContain('token-1')
      // The last one that there can be, and more: those are no question to the measurer, which would hang up.
      for (const pid of [4_194_304, 4_194_305, 99_999_999])
        expect((await explain(pid)).status).toBe(400)
      expect((await explain(process.pid)).status).toBe(200)
    } finally {
      child.kill('SIGKILL')
    }
  })

  test('a proof over no nonce, a used nonce or another address is refused', async () => {
    await start()
    const used = await proof()
    const ask = (dpopProof: string) =>
      call(socket(), 'POST', '/v1/token', { audience: AUDIENCE, dpopProof })
    expect((await ask(used)).status).toBe(200)
    for (const bad of [
      used,
      await proof({ nonce: randomBytes(32).toString('base64url') }),
      await proof({ htu: 'http://other/v1/token' }),
      await proof({ iat: 1 }),
    ]) {
      const { status, body } = await ask(bad)
      expect([status, body['code']]).toEqual([400, 'DPOP_INVALID'])
    }
  })

  test('renews at half the life with the decision before, and keeps the key', async () => {
    broker.ttlSeconds = 2
    await start()
    const dpopProof = await proof()
    await call(socket(), 'POST', '/v1/token', { audience: AUDIENCE, dpopProof })
    await using events = await watch(socket(), AUDIENCE)
    expect(await events.next()).toMatchObject({ event: 'token', data: { accessToken: 'token-1' } })
    expect(await events.next()).toMatchObject({
      event: 'token',
      data: { accessToken: 'token-2', renewed: true },
    })
    expect(broker.evidence[1]).toMatchObject({
      previousDecision: 'decision-1',
      workloadKey: workload.thumbprint,
      facts: { purpose: 'renew' },
    })
    const [first, second] = broker.evidence
    expect(second?.counter).toBeGreaterThan(first?.counter ?? 0)
    expect(second?.nonce).not.toBe(first?.nonce)
  })

  test('a denial drops the token and is told; what follows is an issue', async () => {
    broker.ttlSeconds = 2
    await start()
    await call(socket(), 'POST', '/v1/token', { audience: AUDIENCE })
    await using events = await watch(socket(), AUDIENCE)
    await events.next()
    broker.verdict = 'deny'
    expect(await events.next()).toEqual({
      event: 'denied',
      data: {
        error: 'access_denied',
        error_description: 'denied',
        code: 'CLOSURE_NOT_APPROVED',
        reasons: [{ code: 'CLOSURE_NOT_APPROVED', message: 'no such bag' }],
        decision: 'd',
        log_index: 9,
      },
    })
    const refused = await call(socket(), 'POST', '/v1/token', { audience: AUDIENCE })
    expect([refused.status, refused.body['code']]).toEqual([403, 'CLOSURE_NOT_APPROVED'])
    expect(await events.next()).toMatchObject({ event: 'denied' })
    broker.verdict = 'allow'
    expect(await events.next()).toMatchObject({ event: 'token', data: { renewed: false } })
    expect(broker.evidence.at(-1)).toMatchObject({
      previousDecision: null,
      facts: { purpose: 'issue' },
    })
  })

  test('a denial of the bag for one audience drops the tokens of all, and all are measured anew at once', async () => {
    await start()
    const other = 'https://other.demo.test'
    await call(socket(), 'POST', '/v1/token', { audience: AUDIENCE })
    await using events = await watch(socket(), AUDIENCE)
    expect(await events.next()).toMatchObject({ event: 'token' })
    broker.denied.set(other, 'STRENGTH_TOO_LOW')
    await call(socket(), 'POST', '/v1/token', { audience: other })
    broker.denied.set(other, 'FILE_NOT_IN_CLOSURE')
    const before = broker.evidence.length
    expect((await call(socket(), 'POST', '/v1/token', { audience: other })).status).toBe(403)
    // The first word about this audience since its token: what spoke against the other alone was not told.
    expect(await events.next()).toMatchObject({
      event: 'denied',
      data: { code: 'FILE_NOT_IN_CLOSURE' },
    })
    expect(await events.next()).toMatchObject({ event: 'token', data: { renewed: false } })
    expect(broker.evidence.slice(before).map(({ facts }) => facts.audience)).toEqual([
      other,
      AUDIENCE,
    ])
    expect(broker.evidence.at(-1)).toMatchObject({ previousDecision: null })
    const line = lines.find((text) => text.includes('"unit denied"')) ?? ''
    expect(JSON.parse(line)).toMatchObject({
      ...{ pid: process.pid, audience: other, code: 'FILE_NOT_IN_CLOSURE', decision: 'd' },
      offence: { path: realpathSync(process.execPath), kind: 'FILE_NOT_IN_CLOSURE' },
    })
    await agent?.[Symbol.asyncDispose]()
    agent = undefined
    const kept = JSON.parse(readFileSync(join(directory, 'state', 'denials.json'), 'utf8')) as {
      denials: { code: string }[]
    }
    expect(kept.denials.map(({ code }) => code)).toContain('FILE_NOT_IN_CLOSURE')
  })

  test('a bag that is denied stays without tokens for every audience while it is', async () => {
    await start()
    const other = 'https://other.demo.test'
    await call(socket(), 'POST', '/v1/token', { audience: AUDIENCE })
    await using events = await watch(socket(), AUDIENCE)
    await events.next()
    broker.verdict = 'deny'
    await call(socket(), 'POST', '/v1/token', { audience: other })
    expect(await events.next()).toMatchObject({ event: 'denied' })
    expect(await events.next()).toMatchObject({ event: 'denied' })
    // Nothing is held that a broker which cannot be asked would let out again.
    broker.verdict = 'down'
    expect((await call(socket(), 'POST', '/v1/token', { audience: AUDIENCE })).status).toBe(503)
  })

  test('a broker that does not know its nonce is asked once more with another, and no token is dropped', async () => {
    broker.ttlSeconds = 2
    await start()
    await call(socket(), 'POST', '/v1/token', { audience: AUDIENCE })
    await using events = await watch(socket(), AUDIENCE)
    await events.next()
    broker.foreignNonces = 1
    expect(await events.next()).toMatchObject({ event: 'token', data: { renewed: true } })
    const [, first, second] = broker.evidence
    expect(second?.nonce).not.toBe(first?.nonce)
    expect(second?.counter).toBeGreaterThan(first?.counter ?? 0)
    expect(second).toMatchObject({ previousDecision: 'decision-1', facts: { purpose: 'renew' } })
    // A second time in one request is a failure like any other: the token goes.
    broker.foreignNonces = 2
    expect(await events.next()).toMatchObject({ event: 'denied', data: { code: 'NONCE_INVALID' } })
    expect(broker.foreignNonces).toBe(0)
  })

  test('a denial after an unknown nonce drops the token like any denial', async () => {
    broker.ttlSeconds = 2
    await start()
    await call(socket(), 'POST', '/v1/token', { audience: AUDIENCE })
    await using events = await watch(socket(), AUDIENCE)
    await events.next()
    broker.foreignNonces = 1
    broker.verdict = 'deny'
    expect(await events.next()).toMatchObject({ event: 'denied' })
    broker.verdict = 'down'
    // Nothing is held: a broker that cannot be asked does not bring it back.
    const { status } = await call(socket(), 'POST', '/v1/token', { audience: AUDIENCE })
    expect(status).toBe(503)
  })

  test('a broker that is down is 503 to who holds nothing, and no reason to drop a token', async () => {
    await start()
    broker.verdict = 'down'
    const none = await call(socket(), 'POST', '/v1/token', { audience: AUDIENCE })
    expect([none.status, none.body['code']]).toEqual([503, 'BROKER_UNREACHABLE'])
    broker.verdict = 'allow'
    await call(socket(), 'POST', '/v1/token', { audience: AUDIENCE })
    broker.verdict = 'down'
    const held = await call(socket(), 'POST', '/v1/token', { audience: AUDIENCE })
    expect([held.status, held.body['accessToken']]).toEqual([200, 'token-1'])
  })

  test('malformed requests are refused, and nothing secret is in the log', async () => {
    await start()
    const cases: [unknown, string][] = [
      [{ audience: '' }, 'REQUEST_INVALID'],
      [{ audience: AUDIENCE, ttlSeconds: 0 }, 'REQUEST_INVALID'],
      [{ audience: AUDIENCE, profile: 'a b' }, 'REQUEST_INVALID'],
      [{ audience: AUDIENCE, profile: '' }, 'REQUEST_INVALID'],
      [{ audience: AUDIENCE, tier: 3 }, 'REQUEST_INVALID'],
      [{ audience: AUDIENCE, dpopProof: 'a.b.c' }, 'DPOP_INVALID'],
      [[], 'REQUEST_INVALID'],
      [{ audience: 'x'.repeat(20_000) }, 'REQUEST_LIMIT'],
    ]
    for (const [body, code] of cases)
      expect((await call(socket(), 'POST', '/v1/token', body)).body['code']).toBe(code)
    expect((await call(socket(), 'GET', '/nowhere')).status).toBe(400)
    await call(socket(), 'POST', '/v1/token', { audience: AUDIENCE, dpopProof: await proof() })
    const log = lines.join('\n')
    expect(log).not.toMatch(/token-1|PRIVATE KEY|eyJ/)
  })
})
