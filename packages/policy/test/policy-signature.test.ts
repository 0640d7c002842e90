import { addSignature, formatEnvelope, parseEnvelope, signEnvelope } from '@bagcheck/attest'
import { sha256Hex } from '@bagcheck/nix'
import { describe, expect, test } from 'vitest'
import {
  VerifiedPolicy,
  addPolicySignature,
  createPolicyEnvelope,
  verifyPolicy,
  verifyPolicyDocument,
  verifyTrustRootChain,
  trustRootDigest,
  type InstalledVersion,
} from '../src/index.ts'
import { codeOf } from './code-of.ts'
import {
  NOW,
  POLICY,
  ROOT,
  compile,
  key,
  policySource,
  rootInput,
  rootText,
  signPolicy,
} from './installation.ts'

const { json } = compile(policySource())
const envelope = signPolicy(policySource())
const parsed = parseEnvelope(Buffer.from(envelope))
const signed = (...names: string[]) => ({
  json,
  envelope: formatEnvelope(createPolicyEnvelope(json, null, names.map(key))),
})
const INSTALLED: InstalledVersion = { version: 1, sha256: POLICY.sha256 }

const versioned = (version: number, prev: string | null) => {
  const text = policySource(['version: 1\n', `version: ${version}\n`])
  return { json: compile(text).json, envelope: signPolicy(text, prev) }
}
const install = (document: { json: string; envelope: string }, installed = INSTALLED, now = NOW) =>
  codeOf(() => verifyPolicy(document, ROOT, { installed, now }))
const installFirst = (document: { json: string; envelope: string }, now = NOW) =>
  codeOf(() => verifyPolicy(document, ROOT, { installed: null, now }))

describe('signatures', () => {
  test('by two of three policy keys are enough, whichever they are', () => {
    for (const pair of [
      ['policy-1', 'policy-2'],
      ['policy-3', 'policy-1'],
    ])
      expect(codeOf(() => verifyPolicyDocument(signed(...pair), ROOT))).toBeUndefined()
  })

  test.each([
    ['one', ['policy-1']],
    ['one and that of another role', ['policy-1', 'root-1']],
    ['those of strangers', ['other', 'ci']],
  ])('%s: not enough', (_what, names) => {
    expect(codeOf(() => verifyPolicyDocument(signed(...names), ROOT))).toBe('POLICY_SIGNATURES')
  })

  test('two by one key count once', () => {
    const once = createPolicyEnvelope(json, null, [key('policy-1')])
    const again = createPolicyEnvelope(json, null, [key('policy-1')])
    const signatures = [...once.signatures, ...again.signatures]
    const document = { json, envelope: formatEnvelope({ ...once, signatures }) }
    expect(codeOf(() => verifyPolicyDocument(document, ROOT))).toBe('POLICY_SIGNATURES')
  })

  test('are added one by one, only to the envelope of this very policy', () => {
    const first = createPolicyEnvelope(json, null, [key('policy-1')])
    const both = addPolicySignature(json, null, first, key('policy-2'))
    expect(
      verifyPolicyDocument({ json, envelope: formatEnvelope(both) }, ROOT).signers.toSorted(),
    ).toEqual(['policy-1', 'policy-2'].map((name) => key(name).keyId).toSorted())
    const other = versioned(2, null)
    expect(codeOf(() => addPolicySignature(other.json, null, first, key('policy-2')))).toBe(
      'POLICY_STATEMENT',
    )
    expect(codeOf(() => addPolicySignature(json, POLICY.sha256, first, key('policy-2')))).toBe(
      'POLICY_STATEMENT',
    )
  })

  test('over another policy do not vouch for this one', () => {
    const other = versioned(2, null)
    expect(codeOf(() => verifyPolicyDocument({ json: other.json, envelope }, ROOT))).toBe(
      'POLICY_STATEMENT',
    )
  })

  test('over a statement that says other things than the policy are refused', () => {
    for (const [from, to] of [
      ['"version":1', '"version":2'],
      ['2026-12-24T00:00:00Z', '2027-12-24T00:00:00Z'],
      ['"notBefore":null', '"notBefore":"2026-11-25T00:00:00Z"'],
      ['"installation":"demo"', '"installation":"production"'],
      ['policy.json', 'other.json'],
    ] as const) {
      const payload = Buffer.from(Buffer.from(parsed.payload).toString().replace(from, to))
      const lying = signEnvelope(payload, [key('policy-1'), key('policy-2')])
      const document = { json, envelope: formatEnvelope(lying) }
      expect(codeOf(() => verifyPolicyDocument(document, ROOT))).toBe('POLICY_STATEMENT')
    }
  })

  test('of another installation are refused there', () => {
    const text = rootText(rootInput({ installation: 'production' }))
    const production = verifyTrustRootChain([text], { pin: trustRootDigest(text), now: NOW })
    expect(codeOf(() => verifyPolicyDocument({ json, envelope }, production))).toBe(
      'POLICY_INSTALLATION',
    )
  })

  test('of one key more do no harm', () => {
    const more = formatEnvelope(addSignature(parsed, key('other')))
    expect(verifyPolicyDocument({ json, envelope: more }, ROOT).signers).toHaveLength(2)
  })

  test('cannot be skipped: nobody else makes a verified policy', () => {
    // @ts-expect-error the constructor is private
    const forged = () => new VerifiedPolicy()
    expect(forged).toThrow(TypeError)
  })
})

describe('versions', () => {
  test('start at 1 and step by one', () => {
    expect(installFirst({ json, envelope })).toBeUndefined()
    expect(installFirst(versioned(2, null))).toBe('POLICY_VERSION_SKIPPED')
    expect(install(versioned(2, POLICY.sha256))).toBeUndefined()
    expect(install(versioned(3, POLICY.sha256))).toBe('POLICY_VERSION_SKIPPED')
  })

  test('do not go back', () => {
    const second = versioned(2, POLICY.sha256)
    const installed = { version: 2, sha256: sha256Hex(second.json) }
    expect(install({ json, envelope }, installed)).toBe('POLICY_ROLLBACK')
  })

  test('the installed one again is no error; other content under its number is', () => {
    expect(install({ json, envelope })).toBeUndefined()
    const text = policySource(['uid: 990', 'uid: 991'])
    const fork = { json: compile(text).json, envelope: signPolicy(text) }
    expect(install(fork)).toBe('POLICY_ROLLBACK')
  })

  test('name the very version before them', () => {
    expect(install(versioned(2, sha256Hex('other')))).toBe('POLICY_PREVIOUS')
    expect(install(versioned(2, null))).toBe('POLICY_PREVIOUS')
    expect(installFirst(versioned(1, POLICY.sha256))).toBe('POLICY_PREVIOUS')
  })

  test('are not installed after their end, before their start, or at no time', () => {
    expect(installFirst({ json, envelope }, new Date('2026-12-23T23:59:59Z'))).toBeUndefined()
    expect(installFirst({ json, envelope }, new Date('2026-12-24T00:00:00Z'))).toBe(
      'POLICY_EXPIRED',
    )
    expect(installFirst({ json, envelope }, new Date(Number.NaN))).toBe('POLICY_EXPIRED')
    const text = policySource(['version: 1\n', 'version: 1\nnotBefore: 2026-11-24T12:00:01Z\n'])
    const early = { json: compile(text).json, envelope: signPolicy(text) }
    expect(installFirst(early)).toBe('POLICY_NOT_YET_VALID')
    expect(installFirst(early, new Date('2026-11-24T12:00:01Z'))).toBeUndefined()
  })
})

test('an envelope that is cut off anywhere is refused with a code', () => {
  for (let length = 0; length < envelope.length; length += 7)
    expect(installFirst({ json, envelope: envelope.slice(0, length) })).toBe('POLICY_SIGNATURES')
})
