import { describe, expect, test } from 'vitest'
import {
  AttestError,
  STATEMENT_TYPE,
  canonicalize,
  formatStatement,
  generateSigningKey,
  parseStatement,
  sha256Hex,
  signEnvelope,
  verifyStatement,
} from '../src/index.ts'
import { codeOf } from './code-of.ts'

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))
const digest = { sha256: sha256Hex('x') }
const statement = {
  _type: STATEMENT_TYPE,
  subject: [{ name: 'x', digest }],
  predicateType: 'https://example.test/v1',
  predicate: { a: 1 },
} as const

describe('a statement', () => {
  test('is written as canonical JSON and reads back', () => {
    expect(Buffer.from(formatStatement(statement)).toString()).toBe(canonicalize(statement))
    expect(parseStatement(formatStatement(statement))).toEqual(statement)
  })

  test.each<[claim: string, change: Readonly<Record<string, unknown>>, code: string]>([
    ['of version 0.1', { _type: 'https://in-toto.io/Statement/v0.1' }, 'STATEMENT_FORMAT'],
    ['without type', { _type: undefined }, 'STATEMENT_FORMAT'],
    ['without subjects', { subject: undefined }, 'STATEMENT_FORMAT'],
    ['with no subject', { subject: [] }, 'STATEMENT_FORMAT'],
    ['with a subject without digest', { subject: [{ name: 'x' }] }, 'STATEMENT_FORMAT'],
    ['with a subject of no digest', { subject: [{ name: 'x', digest: {} }] }, 'STATEMENT_FORMAT'],
    ['with a name that is no text', { subject: [{ name: 1, digest }] }, 'STATEMENT_FORMAT'],
    ['with a digest in base64', { subject: [{ digest: { sha256: 'AAAA' } }] }, 'STATEMENT_FORMAT'],
    ['with a short digest', { subject: [{ digest: { sha256: 'ab' } }] }, 'STATEMENT_FORMAT'],
    ['with a digest in capitals', { subject: [{ digest: { sha1: 'AB' } }] }, 'STATEMENT_FORMAT'],
    ['with annotations in a list', { subject: [{ digest, annotations: [] }] }, 'STATEMENT_FORMAT'],
    ['without predicate type', { predicateType: undefined }, 'STATEMENT_FORMAT'],
    ['with an empty predicate type', { predicateType: '' }, 'STATEMENT_FORMAT'],
    ['with 1025 subjects', { subject: Array(1025).fill({ digest }) }, 'STATEMENT_LIMIT'],
  ])('%s is refused', (_claim, change, code) => {
    const text = JSON.stringify({ ...statement, ...change })
    expect(codeOf(() => parseStatement(bytes(text)))).toBe(code)
  })

  test('of others may be spaced, have more members, and subjects without a name', () => {
    const others = {
      ...statement,
      extra: 1,
      subject: [{ digest: { ...digest, sha1: 'ab' }, uri: 'x' }],
    }
    const parsed = parseStatement(bytes(JSON.stringify(others, null, 2)))
    expect(parsed.subject).toEqual([{ name: '', digest: { ...digest, sha1: 'ab' } }])
  })

  test('without a predicate has null for it', () => {
    const text = JSON.stringify({ ...statement, predicate: undefined })
    expect(parseStatement(bytes(text)).predicate).toBeNull()
  })

  test('is refused with a code at every prefix', () => {
    const payload = formatStatement(statement)
    for (let length = 0; length < payload.length; length += 1)
      expect(() => parseStatement(payload.subarray(0, length))).toThrow(AttestError)
  })
})

describe('verifying a statement', () => {
  const key = generateSigningKey().signing
  const envelope = signEnvelope(formatStatement(statement), [key])

  test('gives it with its signers', () => {
    const verified = verifyStatement(envelope, [key], 1, statement.predicateType)
    expect(verified.statement).toEqual(statement)
    expect(verified.signers).toEqual([key])
  })

  test('refuses a statement of another type, so that no document passes for another', () => {
    expect(codeOf(() => verifyStatement(envelope, [key], 1, 'https://example.test/v2'))).toBe(
      'STATEMENT_PREDICATE_TYPE',
    )
  })

  test('looks at nothing before the signature', () => {
    const junk = signEnvelope(bytes('not JSON'), [generateSigningKey().signing])
    expect(codeOf(() => verifyStatement(junk, [key], 1, 'x'))).toBe('SIGNATURE_INVALID')
  })
})
