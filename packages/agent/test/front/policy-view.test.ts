import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import { AgentError } from '../../src/error.ts'
import { readPolicyView } from '../../src/front/policy-view.ts'
import { PIN, ROOT_ENVELOPE } from '../fixture/fake-broker.ts'

const ROOT = '/nix/store/00000000000000000000000000000000-orders-1.0'
const CLOSURE = 'c'.repeat(64)
const POLICY = {
  version: 3,
  trustDomain: 'demo.bagcheck.test',
  roles: {
    orders: {
      unit: { launcher: 'bagcheck-exec', name: 'orders' },
      audiences: {
        a: { maxAgeFullSeconds: 900, minStrength: 'full' },
        b: { maxAgeFullSeconds: 600, minStrength: 'incremental' },
      },
      roots: [{ root: ROOT, closure: CLOSURE }],
    },
  },
}

function view(policy: unknown, changes: Record<string, unknown> = {}, highest = 0) {
  const text = typeof policy === 'string' ? policy : JSON.stringify(policy)
  const response = {
    version: 3,
    sha256: createHash('sha256').update(text).digest('hex'),
    policy: text,
    envelope: '{}',
    rootChain: [ROOT_ENVELOPE],
    logIndex: 0,
    ...changes,
  }
  return readPolicyView(response, { pin: PIN, highest })
}

describe('the agent’s view of a policy', () => {
  test('is the closures of each unit, with the shortest age of a full pass and who demands one', () => {
    expect(view(POLICY).candidates('orders')).toEqual([
      { root: ROOT, closureDigest: CLOSURE, maxAgeFullSeconds: 600, fullFor: new Set(['a']) },
    ])
    expect(view(POLICY).candidates('reports')).toEqual([])
  })

  test.each([
    ['another trust root', {}, { rootChain: ['{"payload":"e30="}'] }, 0, 'TRUST_ROOT_MISMATCH'],
    ['no trust root', {}, { rootChain: [] }, 0, 'BROKER_RESPONSE'],
    ['an older version', {}, {}, 4, 'POLICY_ROLLBACK'],
    ['another version than it says', {}, { version: 4 }, 0, 'BROKER_RESPONSE'],
    ['another digest than it says', {}, { sha256: CLOSURE }, 0, 'BROKER_RESPONSE'],
    ['no trust domain', { trustDomain: undefined }, {}, 0, 'BROKER_RESPONSE'],
    ['a trust domain of no form', { trustDomain: 'A/b' }, {}, 0, 'BROKER_RESPONSE'],
    ['no roles', { roles: null }, {}, 0, 'BROKER_RESPONSE'],
    ['a role without unit', { roles: { x: { roots: [] } } }, {}, 0, 'BROKER_RESPONSE'],
  ])('with %s is refused', (_what, policy, changes, highest, code) => {
    expect(() => view({ ...POLICY, ...policy }, changes, highest)).toThrow(
      expect.objectContaining({ code }),
    )
  })

  test('cut off anywhere is refused', () => {
    const text = JSON.stringify(POLICY)
    for (let length = 0; length < text.length; length += 1)
      expect(() => view(text.slice(0, length))).toThrow(AgentError)
  })
})
