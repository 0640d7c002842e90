import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  AttestError,
  NIX_CLOSURE_V1,
  UNKNOWN_FACTS,
  addSignature,
  bindContent,
  createClosureAttestation,
  formatEnvelope,
  formatStatement,
  generateSigningKey,
  parseBundle,
  parseEnvelope,
  sha256Hex,
  signEnvelope,
  verifyClosureAttestation,
  type ClosureFacts,
  type Statement,
} from '../src/index.ts'
import { codeOf } from './code-of.ts'
import { inventPath, listOf, smallClosure } from './small-closure.ts'

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))
const ci = generateSigningKey().signing
const other = generateSigningKey().signing
const { manifest, files } = smallClosure()
const facts: ClosureFacts = {
  ...UNKNOWN_FACTS,
  system: { value: 'x86_64-linux', source: 'derivation' },
  build: { ...UNKNOWN_FACTS.build, sandbox: { value: true, source: 'nix show-config' } },
}
const made = createClosureAttestation({ manifest, files, facts, key: ci })

describe('an attestation of a closure', () => {
  test('verifies from its bundle and from its JSON line, and says what was signed', () => {
    for (const envelope of [
      parseBundle(bytes(made.bundle)),
      parseEnvelope(bytes(made.intotoJsonl)),
    ]) {
      const verified = verifyClosureAttestation(envelope, [other, ci])
      expect(verified.root).toBe(manifest.root)
      expect(verified.closureDigest).toBe(manifest.digest)
      expect(verified.filesDigest).toBe(files.digest)
      expect(verified.signer.keyId).toBe(ci.keyId)
      expect(verified.statementDigest).toBe(sha256Hex(formatStatement(made.statement)))
      expect(verified.predicate.build.sandbox).toEqual({ value: true, source: 'nix show-config' })
      expect(verified.predicate.build.impure).toEqual({ value: null, source: 'unknown' })
      bindContent(verified, manifest, files)
    }
  })

  test('has the two subjects that stock tools can check against files', () => {
    expect(made.statement.subject).toEqual([
      {
        name: manifest.root,
        digest: { sha256: sha256Hex('service-1.0') },
        annotations: {
          narHash: manifest.entries.find((e) => e.path === manifest.root)?.narHash,
          narSize: 400,
        },
      },
      { name: 'closure.manifest', digest: { sha256: sha256Hex(manifest.text) } },
    ])
  })

  test('gives labels for the facts that are known only', () => {
    expect(made.labels).toEqual({
      'dev.bagcheck.closure.digest': `sha256:${manifest.digest}`,
      'dev.bagcheck.closure.paths': '2',
      'dev.bagcheck.files.digest': `sha256:${files.digest}`,
      'dev.bagcheck.root': manifest.root,
      'dev.bagcheck.system': 'x86_64-linux',
    })
  })

  test('by a key that is not trusted is refused', () => {
    expect(codeOf(() => verifyClosureAttestation(made.envelope, [other]))).toBe('SIGNATURE_INVALID')
    expect(codeOf(() => verifyClosureAttestation(made.envelope, []))).toBe('SIGNATURE_INVALID')
  })

  test('with a second signature is refused, whoever signed', () => {
    const twice = addSignature(made.envelope, other)
    expect(codeOf(() => verifyClosureAttestation(twice, [ci]))).toBe('ATTESTATION_SIGNER')
    expect(codeOf(() => verifyClosureAttestation(twice, [ci, other]))).toBe('ATTESTATION_SIGNER')
    const unsigned = { ...made.envelope, signatures: [] }
    expect(codeOf(() => verifyClosureAttestation(unsigned, [ci]))).toBe('ATTESTATION_SIGNER')
  })

  test('cannot be made for a file list that names files outside the closure', () => {
    const outside = listOf([`${inventPath('other-1')}/bin/x`])
    expect(
      codeOf(() => createClosureAttestation({ manifest, files: outside, facts, key: ci })),
    ).toBe('ATTESTATION_CONTENT')
  })

  test('cannot be made with a value that has no source', () => {
    const wrong = { ...facts, system: { value: 'x86_64-linux', source: 'unknown' } }
    expect(codeOf(() => createClosureAttestation({ manifest, files, facts: wrong, key: ci }))).toBe(
      'ATTESTATION_PREDICATE',
    )
  })
})

// A signed statement is still judged: a trusted key that signs nonsense is refused by form.
describe('a signed statement with', () => {
  type Json = { [name: string]: Json & string & number }
  const signed = (change: (statement: Json) => void): (() => unknown) => {
    const statement = JSON.parse(Buffer.from(made.envelope.payload).toString()) as Json
    change(statement)
    const envelope = signEnvelope(formatStatement(statement as unknown as Statement), [ci])
    return () => verifyClosureAttestation(envelope, [ci])
  }
  const set = (path: string, value: unknown) => (statement: Json) => {
    const names = path.split('.')
    const last = names.pop() ?? ''
    let object: Record<string, unknown> = statement
    for (const name of names) object = object[name] as Record<string, unknown>
    if (value === undefined) delete object[last]
    else object[last] = value
  }

  test.each<[claim: string, path: string, value: unknown, code: string]>([
    ['another predicate type', 'predicateType', 'https://x.test/v1', 'STATEMENT_PREDICATE_TYPE'],
    ['another statement type', '_type', 'https://in-toto.io/Statement/v0.1', 'STATEMENT_FORMAT'],
    ['one subject', 'subject', [made.statement.subject[0]], 'ATTESTATION_SUBJECT'],
    [
      'three subjects',
      'subject',
      [...made.statement.subject, made.statement.subject[1]],
      'ATTESTATION_SUBJECT',
    ],
    [
      'subjects the other way round',
      'subject',
      made.statement.subject.toReversed(),
      'ATTESTATION_SUBJECT',
    ],
    ['no subject', 'subject', [], 'STATEMENT_FORMAT'],
    ['a root that is no store path', 'subject.0.name', '/nix/store/x', 'ATTESTATION_SUBJECT'],
    ['a file as root', 'subject.0.name', `${manifest.root}/bin`, 'ATTESTATION_SUBJECT'],
    [
      'a digest that is not the NAR hash',
      'subject.0.digest.sha256',
      sha256Hex('x'),
      'ATTESTATION_SUBJECT',
    ],
    ['a second algorithm', 'subject.0.digest.sha512', 'ab', 'ATTESTATION_SUBJECT'],
    [
      'a digest in capitals',
      'subject.0.digest.sha256',
      sha256Hex('x').toUpperCase(),
      'STATEMENT_FORMAT',
    ],
    ['no annotations', 'subject.0.annotations', undefined, 'ATTESTATION_SUBJECT'],
    [
      'a NAR hash in nix32',
      'subject.0.annotations.narHash',
      `sha256:${'0'.repeat(52)}`,
      'ATTESTATION_SUBJECT',
    ],
    ['a NAR size of 0', 'subject.0.annotations.narSize', 0, 'ATTESTATION_SUBJECT'],
    ['another manifest name', 'subject.1.name', 'manifest', 'ATTESTATION_SUBJECT'],
    [
      'a closure digest that is not the subject',
      'predicate.closure.digest',
      sha256Hex('x'),
      'ATTESTATION_SUBJECT',
    ],
    [
      'another manifest format',
      'predicate.closure.format',
      'closure-manifest-v2',
      'ATTESTATION_PREDICATE',
    ],
    ['no paths', 'predicate.closure.paths', 0, 'ATTESTATION_SUBJECT'],
    ['half a path', 'predicate.closure.paths', 1.5, 'ATTESTATION_PREDICATE'],
    ['fewer bytes than its root', 'predicate.closure.narBytes', 1, 'ATTESTATION_SUBJECT'],
    ['another file format', 'predicate.files.format', 'x', 'ATTESTATION_PREDICATE'],
    ['an unknown member', 'predicate.extra', 1, 'ATTESTATION_PREDICATE'],
    ['an unknown build fact', 'predicate.build.extra', 1, 'ATTESTATION_PREDICATE'],
    ['a build fact left out', 'predicate.build.impure', undefined, 'ATTESTATION_PREDICATE'],
    ['a bare build fact', 'predicate.build.sandbox', true, 'ATTESTATION_PREDICATE'],
    ['a build fact as text', 'predicate.build.sandbox.value', 'true', 'ATTESTATION_PREDICATE'],
    ['a null with a source', 'predicate.build.sandbox.value', null, 'ATTESTATION_PREDICATE'],
    ['a value from nowhere', 'predicate.build.sandbox.source', '', 'ATTESTATION_PREDICATE'],
    [
      'a value of unknown source',
      'predicate.build.sandbox.source',
      'unknown',
      'ATTESTATION_PREDICATE',
    ],
    [
      'a derivation that is none',
      'predicate.drvPath',
      { value: manifest.root, source: 'x' },
      'ATTESTATION_PREDICATE',
    ],
    [
      'a rebuild of another kind',
      'predicate.build.rebuild',
      { value: 'yes', source: 'x' },
      'ATTESTATION_PREDICATE',
    ],
    [
      'a successor that is no digest',
      'predicate.successorOf',
      [{ sha256: 'x' }],
      'ATTESTATION_PREDICATE',
    ],
    ['no predicate', 'predicate', undefined, 'ATTESTATION_PREDICATE'],
  ])('%s is refused', (_claim, path, value, code) => {
    expect(codeOf(signed(set(path, value)))).toBe(code)
  })

  test('members that in-toto does not know is read', () => {
    expect(codeOf(signed(set('extra', 1)))).toBeUndefined()
  })

  test('every single member taken out is refused', () => {
    const paths = memberPaths(JSON.parse(Buffer.from(made.envelope.payload).toString()))
    expect(paths.length).toBe(79)
    for (const path of paths) expect(signed(set(path, undefined)), path).toThrow(AttestError)
  })
})

describe('binding content to an attestation', () => {
  const verified = verifyClosureAttestation(made.envelope, [ci])

  test('refuses the manifest of another closure', () => {
    expect(codeOf(() => bindContent(verified, smallClosure('service-1.1').manifest, files))).toBe(
      'ATTESTATION_CONTENT',
    )
  })

  test('refuses a file list with a file more or less', () => {
    const paths = files.files.map(({ path }) => path)
    for (const changed of [paths.slice(1), [...paths, `${manifest.root}/extra`]])
      expect(codeOf(() => bindContent(verified, manifest, listOf(changed)))).toBe(
        'ATTESTATION_CONTENT',
      )
  })
})

test('no changed byte of an attestation changes what is verified', () => {
  const text = bytes(formatEnvelope(made.envelope))
  fc.assert(
    fc.property(fc.nat(text.length - 1), fc.integer({ min: 1, max: 255 }), (at, mask) => {
      const changed = text.slice()
      changed[at] = (changed[at] ?? 0) ^ mask
      try {
        const verified = verifyClosureAttestation(parseEnvelope(changed), [ci])
        expect(verified.statementDigest).toBe(sha256Hex(made.envelope.payload))
      } catch (error) {
        expect(error).toBeInstanceOf(AttestError)
      }
    }),
    { numRuns: 1000 },
  )
})

test('the predicate type is the one in the list of URIs', () => {
  expect(made.statement.predicateType).toBe(NIX_CLOSURE_V1)
})

// The paths of all members of objects, arrays walked through.
function memberPaths(value: unknown, path: readonly string[] = []): string[] {
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([name, member]) => {
    const here = [...path, name]
    return [...(Array.isArray(value) ? [] : [here.join('.')]), ...memberPaths(member, here)]
  })
}
