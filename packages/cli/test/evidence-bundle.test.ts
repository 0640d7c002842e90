// The bundle in testdata was exported by a real broker; see the README there.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { canonicalize } from '@bagcheck/attest'
import { trustRootDigest } from '@bagcheck/policy'
import { describe, expect, test } from 'vitest'
import { CliError, EXIT } from '../src/error.ts'
import { explainBundle } from '../src/evidence/explain.ts'
import { EVIDENCE_CHECKS, verifyEvidenceBundle } from '../src/evidence/verify.ts'

const folder = join(import.meta.dirname, '../testdata/evidence')
const golden = readFileSync(join(folder, 'token.evidence.json'))
const pin = trustRootDigest(readFileSync(join(folder, 'root.json'), 'utf8'))

type Json = { [name: string]: Json } | Json[] | string | number | boolean | null

/** Every string, number and null of a value with the path to it. */
function leaves(value: Json, path: readonly string[] = []): [string, Json][] {
  if (typeof value !== 'object' || value === null) return [[path.join('.'), value]]
  return Object.entries(value).flatMap(([name, member]) => leaves(member, [...path, name]))
}

/** A copy with what lies at `path` changed. */
function changed(path: string, change: (value: Json) => Json): Buffer {
  const copy = JSON.parse(golden.toString()) as Json
  const names = path.split('.')
  const last = names.pop() ?? ''
  let place = copy as { [name: string]: Json }
  for (const name of names) place = place[name] as { [name: string]: Json }
  place[last] = change(place[last] as Json)
  return Buffer.from(canonicalize(copy))
}

function refusal(bytes: Uint8Array, trust: string | null = pin): CliError {
  try {
    verifyEvidenceBundle(bytes, { trust: trust as typeof pin | null })
  } catch (error) {
    if (error instanceof CliError) return error
    throw error
  }
  throw new Error('it was verified')
}

const otherLetter = (text: string, at: number): string =>
  text.slice(0, at) + (text[at] === 'A' ? 'B' : 'A') + text.slice(at + 1)

const alter = (value: Json): Json =>
  typeof value === 'number'
    ? value + 1
    : typeof value === 'string'
      ? otherLetter(value, Math.floor(value.length / 2))
      : 'A'

/** Nothing in the bundle vouches for these; they help to find a token. */
const HINTS = ['token.kid', 'token.sha256']

describe('an evidence bundle', () => {
  test('of a real token is verified against its trust root', () => {
    const bundle = verifyEvidenceBundle(golden, { trust: pin })
    expect(bundle).toMatchObject({
      authenticated: true,
      installation: 'demo',
      decision: { role: 'orders', ttlSeconds: 5, tier: 0 },
    })
  })

  test('without a trust root is consistent and not authenticated', () => {
    expect(verifyEvidenceBundle(golden, { trust: null }).authenticated).toBe(false)
  })

  test('against another trust root is refused at the first link', () => {
    const error = refusal(golden, '0'.repeat(64))
    expect(error).toMatchObject({ code: 'EVIDENCE_BUNDLE', exit: EXIT.refused })
    expect(error.detail).toEqual({ check: 'trust root', code: 'TRUST_ROOT_PIN' })
  })

  test('says why the token was issued', () => {
    const text = explainBundle(verifyEvidenceBundle(golden, { trust: pin })).join('\n')
    expect(text).toMatch(/Policy version 1 gives role orders tokens/)
    expect(text).toMatch(/the policy gives the same answer/)
  })

  const fields = leaves(JSON.parse(golden.toString()) as Json).filter(
    ([path]) => !HINTS.includes(path),
  )
  test.each(fields)('with %s altered is refused', (path) => {
    const error = refusal(changed(path, alter))
    expect(error.code).toBe('EVIDENCE_BUNDLE')
    expect(EVIDENCE_CHECKS).toContain((error.detail as { check: string }).check)
  })

  test.each(fields)('with %s altered is not even consistent with itself', (path) => {
    expect(refusal(changed(path, alter), null).code).toBe('EVIDENCE_BUNDLE')
  })

  test.each(HINTS)('%s is a hint: nothing rests on it', (path) => {
    const bytes = changed(path, () => (path.endsWith('sha256') ? 'a'.repeat(64) : 'other'))
    expect(verifyEvidenceBundle(bytes, { trust: pin }).authenticated).toBe(true)
  })

  test('with one part of another entry is refused', () => {
    const swapped = changed('decision.envelope', () => {
      const { enrolment } = JSON.parse(golden.toString()) as { enrolment: { envelope: string } }
      return enrolment.envelope
    })
    expect(refusal(swapped).detail).toMatchObject({ check: 'decision' })
  })

  test('with a bound token said to be a bearer token is refused', () => {
    expect(refusal(changed('token.cnf', () => null)).detail).toEqual({ check: 'token' })
  })

  test('with a field too many is refused', () => {
    const more = Buffer.from(canonicalize({ ...JSON.parse(golden.toString()), more: 1 }))
    expect(refusal(more).detail).toMatchObject({ check: 'format' })
  })

  test('that is not canonical is refused', () => {
    expect(refusal(Buffer.from(` ${golden.toString()}`)).detail).toMatchObject({ check: 'format' })
  })

  test('cut at any place is refused as malformed', () => {
    for (let length = 0; length < golden.length; length += 97)
      expect(refusal(golden.subarray(0, length)).detail).toMatchObject({ check: 'format' })
  })

  test('with one bit flipped is refused wherever it is', () => {
    const text = golden.toString()
    const kid = text.indexOf('"kid":')
    // Three signed the trust root and two must: one of its signatures may be wrong.
    const spare = text.indexOf('signatures', text.indexOf('"rootChain"'))
    const schema = text.indexOf('"schema":"bagcheck.evidence-bundle', spare)
    for (let at = 0; at < golden.length; at += 211) {
      if (at >= kid && at < kid + 60) continue // the hint
      if (at >= spare && at < schema) continue
      const flipped = Buffer.from(golden)
      flipped[at] = (flipped[at] ?? 0) ^ 1
      expect(refusal(flipped).code).toBe('EVIDENCE_BUNDLE')
    }
  })
})
