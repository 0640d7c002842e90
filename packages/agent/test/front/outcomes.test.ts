import { describe, expect, test } from 'vitest'
import { AgentError } from '../../src/error.ts'
import { BrokerProblem } from '../../src/front/broker-client.ts'
import { offenceOf } from '../../src/front/offence.ts'
import {
  formatDenials,
  isAboutBag,
  Outcomes,
  parseDenials,
  type Denial,
  type InstanceDenied,
} from '../../src/front/outcomes.ts'
import { refusalOf } from '../../src/front/problem.ts'
import { readInstance } from '../../src/measure/instance.ts'
import type { UnitFacts } from '../../src/measure/messages.ts'
import type { Evidence } from '@bagcheck/api'

const denial = (...codes: string[]): BrokerProblem =>
  new BrokerProblem(403, {
    error: 'access_denied',
    error_description: 'no',
    code: codes[0] ?? '',
    reasons: codes.map((code) => ({ code, message: 'no' })),
    decision: 'd',
  })

const unit = (cgroup: string, launcher: UnitFacts['launcher'] = 'systemd'): UnitFacts => ({
  launcher,
  name: 'a.service',
  cgroup,
  contract: null,
  container: null,
  service: null,
})

function world() {
  const saved: (readonly Denial[])[] = []
  const events: InstanceDenied[] = []
  const store = { denials: [], save: (denials: readonly Denial[]) => void saved.push(denials) }
  const outcomes = new Outcomes(
    store,
    () => 5000,
    () => undefined,
  )
  outcomes.subscribe((event) => events.push(event))
  const instance = readInstance(process.pid)
  const request = (pid: number, audience = 'a') => ({
    instance: { ...instance, pid },
    ...{ audience, ttlSeconds: null, profile: null, workloadKey: null, previousDecision: null },
  })
  return { outcomes, saved, events, request, instance }
}

describe('what is about the bag', () => {
  test.each([
    ['CLOSURE_NOT_APPROVED', denial('CLOSURE_NOT_APPROVED'), true],
    [
      'a foreign file, though the check was also too weak',
      denial('STRENGTH_TOO_LOW', 'FILE_NOT_IN_CLOSURE'),
      true,
    ],
    ['a code that this agent does not know', denial('SOMETHING_NEW'), true],
    [
      'a banned node',
      new BrokerProblem(401, {
        error: 'invalid_client',
        error_description: 'x',
        code: 'NODE_BANNED',
      }),
      true,
    ],
    ['a unit that hides from the measurer', new AgentError('PROCESS_HIDDEN', 'hidden'), true],
    ['a stronger check', denial('STRENGTH_TOO_LOW', 'TIER_TOO_LOW'), false],
    ['an unknown audience', denial('AUDIENCE_NOT_ALLOWED'), false],
    ['a broker that is down', new AgentError('BROKER_UNREACHABLE', 'down'), false],
    ['a malformed request', new AgentError('REQUEST_INVALID', 'x'), false],
    [
      'a foreign nonce',
      new BrokerProblem(400, {
        error: 'invalid_grant',
        error_description: 'x',
        code: 'NONCE_INVALID',
      }),
      false,
    ],
  ])('%s', (_what, error, expected) => {
    expect(isAboutBag(refusalOf(error))).toBe(expected)
  })
})

describe('outcomes', () => {
  test('a denial concerns its instance and others of its unit, and nobody else', () => {
    const { outcomes, events, request, instance } = world()
    const success = { decision: 'd', logIndex: 1 }
    outcomes.succeeded(request(11), { unit: unit('/one') }, success)
    outcomes.succeeded(request(12), { unit: unit('/one') }, success)
    outcomes.succeeded(request(13), { unit: unit('/two') }, success)
    outcomes.failed(request(11, 'b'), { unit: unit('/one') }, denial('FILE_NOT_IN_CLOSURE'))
    const [event] = events
    const concerned = [11, 12, 13, 14].filter((pid) => event?.concerns({ ...instance, pid }))
    expect(concerned).toEqual([11, 12])
  })

  test('a denial concerns a process whose first request is still under way', () => {
    const { outcomes, events, request, instance } = world()
    outcomes.measured(request(12), unit('/one'))
    outcomes.failed(request(11), { unit: unit('/one') }, denial('FILE_NOT_IN_CLOSURE'))
    expect(events[0]?.concerns({ ...instance, pid: 12 })).toBe(true)
  })

  test('callers without a unit do not drag each other down', () => {
    const { outcomes, events, request, instance } = world()
    outcomes.failed(request(1), { unit: unit('/', 'none') }, denial('UNIT_NONE'))
    outcomes.failed(request(2), { unit: unit('/', 'none') }, denial('UNIT_NONE'))
    expect(events[1]?.concerns({ ...instance, pid: 1 })).toBe(false)
  })

  test('codes that a broker invents do not make series without end', () => {
    const { outcomes, request } = world()
    for (let n = 0; n < 1000; n += 1) outcomes.failed(request(1), {}, denial(`MADE_UP_${n}`))
    outcomes.failed(request(1), {}, denial('"} 1\nforged 1'))
    expect(outcomes.byCode.size).toBeLessThanOrEqual(257)
    expect([...outcomes.byCode.keys()].every((code) => /^[A-Z0-9_]+$/.test(code))).toBe(true)
  })

  test('the newest denials are written down at the end, and read back', () => {
    const { outcomes, saved, request } = world()
    for (let n = 0; n < 100; n += 1)
      outcomes.failed(request(n + 1), { unit: unit('/one') }, denial('TRACED'))
    outcomes[Symbol.dispose]()
    const kept = saved.at(-1) ?? []
    expect(kept).toHaveLength(64)
    expect(kept[0]).toMatchObject({ pid: 100, code: 'TRACED', decision: 'd', at: 5000 })
    expect(parseDenials(formatDenials(kept))).toEqual(kept)
    expect(parseDenials(undefined)).toEqual([])
    expect(() => parseDenials('{')).toThrow('expected denials')
    expect(() => parseDenials('{"schema":"x"}')).toThrow('expected denials')
  })

  test('a unit of which nothing runs any more is no series', () => {
    const { outcomes, request, instance } = world()
    outcomes.succeeded(request(process.pid), { unit: unit('/one') }, { decision: 'd', logIndex: 1 })
    outcomes.succeeded(request(4_194_304), { unit: unit('/two') }, { decision: 'e', logIndex: 2 })
    expect(outcomes.successes().map(({ unit: { cgroup } }) => cgroup)).toEqual(['/one'])
    expect(outcomes.lastOf(instance)).toMatchObject({ success: { decision: 'd' } })
  })
})

describe('the first object of a denial', () => {
  const file = (path: string) => ({
    ...{ path, sha256: 'ab'.repeat(32), device: '8:1', inode: '1' },
    ...{ isStoreFile: false, unlinked: false },
  })
  const facts = {
    unit: { ...unit('/one'), contract: { executable: '/nix/store/x/bin/a' } },
    processes: [
      {
        executable: file('/nix/store/x/bin/a'),
        files: [file('/tmp/a'), file('/tmp/a.so')],
        tracerPid: 7,
      },
    ],
    roots: [
      {
        root: '/nix/store/x',
        mismatch: {
          path: '/nix/store/y',
          file: '/nix/store/y/f',
          kind: 'content',
          expected: 'e',
          seen: 's',
        },
      },
    ],
  } as unknown as Evidence['facts']
  const problem = (code: string, message: string) => ({
    ...{ error: 'access_denied', error_description: message, code },
    reasons: [{ code, message }],
  })

  test.each([
    [
      'CONTENT_MISMATCH',
      'x',
      { path: '/nix/store/y/f', kind: 'content', expected: 'e', seen: 's' },
    ],
    [
      'FILE_NOT_IN_CLOSURE',
      'process 3 maps "/tmp/a.so"',
      {
        path: '/tmp/a.so',
        kind: 'FILE_NOT_IN_CLOSURE',
        expected: 'a file of the approved closure',
        seen: `sha256 ${'ab'.repeat(32)}`,
      },
    ],
    [
      'TRACED',
      'traced',
      { path: '/nix/store/x/bin/a', kind: 'TRACED', expected: '', seen: 'process 7 traces it' },
    ],
    [
      'CLOSURE_NOT_APPROVED',
      'no',
      {
        path: '/nix/store/x/bin/a',
        kind: 'CLOSURE_NOT_APPROVED',
        expected: '',
        seen: '/nix/store/x',
      },
    ],
    [
      'UID_NOT_ALLOWED',
      'uid 0',
      { path: '/nix/store/x/bin/a', kind: 'UID_NOT_ALLOWED', expected: '', seen: 'uid 0' },
    ],
  ])('of %s', (code, message, expected) => {
    expect(offenceOf(problem(code, message), facts)).toEqual(expected)
  })
})
