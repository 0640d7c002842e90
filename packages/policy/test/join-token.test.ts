import { formatEnvelope, parseEnvelope } from '@bagcheck/attest'
import { describe, expect, test } from 'vitest'
import {
  createJoinToken,
  createPolicyEnvelope,
  verifyJoinToken,
  verifyJoinTokenDocument,
} from '../src/index.ts'
import { codeOf } from './code-of.ts'
import { NOW, ROOT, compile, key, policySource } from './installation.ts'

const token = {
  installation: 'demo',
  tokenId: '00112233445566778899aabbccddeeff',
  nodeClass: 'demo',
  notBefore: '2026-11-24T11:00:00Z',
  expires: '2026-11-24T13:00:00Z',
  nodeExpiresSeconds: 86_400,
}
const textOf = (wish: Partial<typeof token> = {}, signer = 'enrolment'): string =>
  formatEnvelope(createJoinToken({ ...token, ...wish }, key(signer)))
const use = (text: string, now = NOW) => codeOf(() => verifyJoinToken(text, ROOT, now))

describe('a join token', () => {
  test('says which node may enrol, and for how long', () => {
    expect(verifyJoinToken(textOf(), ROOT, NOW)).toMatchObject(token)
  })

  test('is good from notBefore until before expires', () => {
    const at = (time: string) => use(textOf(), new Date(time))
    expect(at('2026-11-24T10:59:59Z')).toBe('JOIN_TOKEN_NOT_YET_VALID')
    expect(at('2026-11-24T11:00:00Z')).toBeUndefined()
    expect(at('2026-11-24T12:59:59Z')).toBeUndefined()
    expect(at('2026-11-24T13:00:00Z')).toBe('JOIN_TOKEN_EXPIRED')
    expect(use(textOf(), new Date(Number.NaN))).toBe('JOIN_TOKEN_NOT_YET_VALID')
  })

  test('can be audited whatever its age', () => {
    expect(verifyJoinTokenDocument(textOf(), ROOT).tokenId).toBe(token.tokenId)
  })

  test.each(['policy-1', 'root-1', 'broker', 'other'])('signed by %s is refused', (signer) => {
    expect(use(textOf({}, signer))).toBe('JOIN_TOKEN_SIGNATURE')
  })

  test('of another installation is refused', () => {
    expect(use(textOf({ installation: 'production' }))).toBe('JOIN_TOKEN_INSTALLATION')
  })

  test('that was changed is refused', () => {
    const envelope = parseEnvelope(Buffer.from(textOf()))
    const payload = Buffer.from(Buffer.from(envelope.payload).toString().replace('86400', '86401'))
    expect(use(formatEnvelope({ ...envelope, payload }))).toBe('JOIN_TOKEN_SIGNATURE')
  })

  test('is not any other statement that an enrolment key signed', () => {
    const { json } = compile(policySource())
    const other = formatEnvelope(createPolicyEnvelope(json, null, [key('enrolment')]))
    expect(use(other)).toBe('JOIN_TOKEN_SIGNATURE')
  })

  test('that is cut off anywhere is refused with a code', () => {
    const text = textOf()
    for (let length = 0; length < text.length; length += 3)
      expect(use(text.slice(0, length))).toBe('JOIN_TOKEN_SIGNATURE')
  })

  test.each([
    { tokenId: 'short' },
    { nodeClass: '' },
    { nodeExpiresSeconds: 0 },
    { nodeExpiresSeconds: 1.5 },
    { expires: 'tomorrow' },
    { expires: token.notBefore },
  ])('with %o is not signed', (wish) => {
    expect(codeOf(() => textOf(wish))).toBe('JOIN_TOKEN_FORMAT')
  })
})
