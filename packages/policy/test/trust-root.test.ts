import { formatEnvelope, parseEnvelope, type Envelope } from '@bagcheck/attest'
import { describe, expect, test } from 'vitest'
import { createTrustRoot, trustRootDigest, verifyTrustRootChain } from '../src/index.ts'
import { codeOf } from './code-of.ts'
import { NOW, PIN, ROOT_TEXT, key, members, rootInput, rootText } from './installation.ts'

const verify = (...texts: string[]) => verifyTrustRootChain(texts, { pin: PIN, now: NOW })
const parse = (text: string): Envelope => parseEnvelope(Buffer.from(text))

const second = (wish: Parameters<typeof rootInput>[0] = {}) =>
  rootInput({ version: 2, prev: PIN, ...wish })
const { roles } = rootInput()

describe('version 1', () => {
  test('is what its pinned digest names', () => {
    const root = verify(ROOT_TEXT)
    expect(root).toMatchObject({ installation: 'demo', version: 1, digest: PIN })
    expect(root.roles.policy.threshold).toBe(2)
    expect(root.roles.policy.keys.map(({ keyId }) => keyId).toSorted()).toEqual(
      ['policy-1', 'policy-2', 'policy-3'].map((name) => key(name).keyId).toSorted(),
    )
    expect(root.names.get(key('broker').keyId)).toBe('broker')
  })

  test('keeps its digest when a signature is added', () => {
    const more = rootText(rootInput(), ['root-1', 'root-2', 'root-3'])
    expect(trustRootDigest(more)).toBe(PIN)
    expect(verify(more).digest).toBe(PIN)
  })

  test('of somebody else is refused', () => {
    const other = rootText(rootInput({ expires: '2028-01-01T00:00:00Z' }))
    expect(codeOf(() => verify(other))).toBe('TRUST_ROOT_PIN')
  })

  test.each([
    ['too few signatures', ['root-1']],
    ['signatures of another role', ['root-1', 'policy-1']],
  ])('with %s is refused', (_what, signers) => {
    expect(codeOf(() => verify(rootText(rootInput(), signers)))).toBe('TRUST_ROOT_SIGNATURES')
  })

  test('signed twice by one key does not meet a threshold of two', () => {
    const [once] = parse(rootText(rootInput(), ['root-1'])).signatures
    const [again] = parse(rootText(rootInput(), ['root-1'])).signatures
    const signatures = [once, again].filter((signature) => signature !== undefined)
    const twice = formatEnvelope({ ...parse(ROOT_TEXT), signatures })
    expect(codeOf(() => verify(twice))).toBe('TRUST_ROOT_SIGNATURES')
  })

  test('expires', () => {
    const at = (now: Date) => codeOf(() => verifyTrustRootChain([ROOT_TEXT], { pin: PIN, now }))
    expect(at(new Date('2027-11-23T23:59:59Z'))).toBeUndefined()
    expect(at(new Date('2027-11-24T00:00:00Z'))).toBe('TRUST_ROOT_EXPIRED')
    expect(at(new Date(Number.NaN))).toBe('TRUST_ROOT_EXPIRED')
  })

  test('cannot name a predecessor', () => {
    const text = rootText(rootInput({ prev: PIN }))
    const pin = trustRootDigest(text)
    expect(codeOf(() => verifyTrustRootChain([text], { pin, now: NOW }))).toBe('TRUST_ROOT_CHAIN')
  })
})

describe('a chain', () => {
  test('leads to its last version', () => {
    expect(verify(ROOT_TEXT, rootText(second())).version).toBe(2)
  })

  test('changes root keys with the signatures of the old and the new ones', () => {
    const next = second({ roles: { ...roles, root: members(1, 'other') } })
    const text = (...signers: string[]) => rootText(next, signers)
    expect(verify(ROOT_TEXT, text('root-1', 'root-2', 'other')).roles.root.keys).toHaveLength(1)
    // Only the new key, and only the old ones.
    expect(codeOf(() => verify(ROOT_TEXT, text('other')))).toBe('TRUST_ROOT_SIGNATURES')
    expect(codeOf(() => verify(ROOT_TEXT, text('root-1', 'root-2')))).toBe('TRUST_ROOT_SIGNATURES')
  })

  test('a key that version 2 removed signs nothing in version 3', () => {
    const two = rootText(second({ roles: { ...roles, root: members(2, 'root-1', 'root-2') } }))
    const three = rootInput({ version: 3, prev: trustRootDigest(two) })
    expect(codeOf(() => verify(ROOT_TEXT, two, rootText(three, ['root-2', 'root-3'])))).toBe(
      'TRUST_ROOT_SIGNATURES',
    )
    expect(verify(ROOT_TEXT, two, rootText(three, ['root-1', 'root-2'])).version).toBe(3)
  })

  test('may hold an expired version, but not at its end', () => {
    const expired = rootText(second({ expires: '2026-01-01T00:00:00Z' }))
    const three = rootText(rootInput({ version: 3, prev: trustRootDigest(expired) }))
    expect(verify(ROOT_TEXT, expired, three).version).toBe(3)
    expect(codeOf(() => verify(ROOT_TEXT, expired))).toBe('TRUST_ROOT_EXPIRED')
  })

  test.each([
    ['skips a version', second({ version: 3 })],
    ['repeats a version', second({ version: 1 })],
    ['names another predecessor', second({ prev: trustRootDigest(rootText(second())) })],
    ['names no predecessor', second({ prev: null })],
    ['changes the installation', second({ installation: 'production' })],
  ])('that %s is refused', (_what, input) => {
    expect(codeOf(() => verify(ROOT_TEXT, rootText(input)))).toBe('TRUST_ROOT_CHAIN')
  })

  test('is not empty', () => {
    expect(codeOf(() => verify())).toBe('TRUST_ROOT_CHAIN')
  })
})

describe('what makes no sense is not signed', () => {
  test.each([
    ['a threshold that cannot be met', { roles: { ...roles, policy: members(3, 'policy-1') } }],
    ['a threshold of zero', { roles: { ...roles, policy: members(0, 'policy-1') } }],
    ['a role without keys', { roles: { ...roles, enrolment: members(1) } }],
    ['a key twice', { roles: { ...roles, policy: members(1, 'policy-1', 'policy-1') } }],
    ['a time that is none', { expires: '2026-02-30T00:00:00Z' }],
    ['a name with a slash', { installation: 'a/b' }],
    ['no log key', { log: { origin: 'demo.bagcheck.log', keys: [] } }],
  ])('%s', (_what, wish) => {
    const create = () => createTrustRoot(rootInput(wish), [key('root-1')])
    expect(codeOf(create)).toBe('TRUST_ROOT_FORMAT')
  })
})

test('a trust root that is cut off anywhere is refused with a code', () => {
  for (let length = 0; length < ROOT_TEXT.length; length += 7)
    expect(codeOf(() => verify(ROOT_TEXT.slice(0, length)))).toBe('TRUST_ROOT_FORMAT')
})

test('a bit that flips in the payload is refused with a code', () => {
  const envelope = parse(ROOT_TEXT)
  for (let at = 0; at < envelope.payload.length; at += 11) {
    const payload = Uint8Array.from(envelope.payload)
    payload[at] = (payload[at] ?? 0) ^ 1
    expect(codeOf(() => verify(formatEnvelope({ ...envelope, payload })))).toMatch(/^TRUST_ROOT_/)
  }
})
