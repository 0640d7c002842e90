// The predicate `nix-closure/v1`: what CI says about a closure, and how it learnt each thing.
//
// A fact is a value with its source. What was not learnt is said (`value` null, `source` "unknown"),
// never left out and never guessed: policy demands facts by value, so an unknown one denies. The
// predicate is ours and closed: unknown members, missing members and other formats are refused.
import { parseNarHash, parseSha256, parseStorePath } from '@bagcheck/nix'
import type { NarHash, Sha256, StorePath } from '@bagcheck/nix'
import { AttestError } from './error.ts'
import {
  asArray,
  asBoolean,
  asCount,
  asRecord,
  asString,
  mismatch,
  within,
  type Place,
} from './shape.ts'

/** Something learnt about a build. `value` is null if and only if `source` is "unknown". */
export interface Fact<T> {
  readonly value: T | null
  /** How it was learnt: "nix show-config", "nix database", "given by the caller", … */
  readonly source: string
}

/** An input that a flake.lock pins. */
export interface FlakeInput {
  /** Name of its node in the lock file. */
  readonly name: string
  /** Flake reference without revision, such as "github:NixOS/nixpkgs". */
  readonly url: string
  readonly rev: string | null
  readonly narHash: NarHash | null
  /** Seconds since 1970. */
  readonly lastModified: number | null
}

/** Facts of the evaluation. */
export interface FlakeFacts {
  readonly url: Fact<string>
  readonly rev: Fact<string>
  readonly narHash: Fact<NarHash>
  /** SHA-256 of the bytes of flake.lock. */
  readonly lockDigest: Fact<Sha256>
  readonly inputs: Fact<readonly FlakeInput[]>
}

/** Whether a second build gave the same bytes. */
export type Rebuild = 'match' | 'mismatch' | 'not-run'

/** Facts of the build: effective settings of Nix, and where the paths came from. */
export interface BuildFacts {
  readonly sandbox: Fact<boolean>
  readonly sandboxFallback: Fact<boolean>
  readonly impure: Fact<boolean>
  readonly substituters: Fact<readonly string[]>
  readonly trustedPublicKeys: Fact<readonly string[]>
  readonly requireSigs: Fact<boolean>
  readonly nixVersion: Fact<string>
  /** Paths of the closure that this store built itself. */
  readonly builtLocally: Fact<number>
  /** Paths of the closure that came signed from elsewhere. */
  readonly substituted: Fact<number>
  readonly rebuild: Fact<Rebuild>
}

/** Everything about a closure that does not follow from its manifest and file list. */
export interface ClosureFacts {
  readonly system: Fact<string>
  readonly drvPath: Fact<StorePath>
  /** Name of the derivation's output, such as "out". */
  readonly output: Fact<string>
  readonly flake: FlakeFacts
  /** Closures that this one replaces, by closure digest. */
  readonly successorOf: readonly { readonly sha256: Sha256 }[]
  readonly build: BuildFacts
}

export interface ClosurePredicate extends ClosureFacts {
  readonly closure: {
    readonly digest: Sha256
    readonly format: 'closure-manifest-v1'
    readonly paths: number
    readonly narBytes: number
  }
  readonly files: {
    readonly digest: Sha256
    readonly format: 'closure-files-v1'
    readonly count: number
  }
}

/** A fact that was not learnt. */
export const UNKNOWN: Fact<never> = Object.freeze({ value: null, source: 'unknown' })

/** Facts of which nothing is known. */
export const UNKNOWN_FACTS: ClosureFacts = {
  system: UNKNOWN,
  drvPath: UNKNOWN,
  output: UNKNOWN,
  flake: { url: UNKNOWN, rev: UNKNOWN, narHash: UNKNOWN, lockDigest: UNKNOWN, inputs: UNKNOWN },
  successorOf: [],
  build: {
    sandbox: UNKNOWN,
    sandboxFallback: UNKNOWN,
    impure: UNKNOWN,
    substituters: UNKNOWN,
    trustedPublicKeys: UNKNOWN,
    requireSigs: UNKNOWN,
    nixVersion: UNKNOWN,
    builtLocally: UNKNOWN,
    substituted: UNKNOWN,
    rebuild: UNKNOWN,
  },
}

const MAX_SOURCE_LENGTH = 200
const MAX_LIST_LENGTH = 10_000

/**
 * Reads the predicate of a verified statement.
 *
 * @throws {AttestError} ATTESTATION_PREDICATE
 */
export function parseClosurePredicate(value: unknown): ClosurePredicate {
  const place: Place = { at: 'predicate', code: 'ATTESTATION_PREDICATE' }
  const names = ['closure', 'files', 'system', 'drvPath', 'output', 'flake', 'successorOf', 'build']
  const predicate = asRecord(value, names, place)
  const at = (name: string): Place => within(place, name)
  return {
    closure: parseClosure(predicate['closure'], at('closure')),
    files: parseFiles(predicate['files'], at('files')),
    system: parseFact(predicate['system'], at('system'), asString),
    drvPath: parseFact(predicate['drvPath'], at('drvPath'), asDrvPath),
    output: parseFact(predicate['output'], at('output'), asString),
    flake: parseFlake(predicate['flake'], at('flake')),
    successorOf: asList(predicate['successorOf'], at('successorOf'), (entry, entryPlace) => ({
      sha256: asSha256(
        asRecord(entry, ['sha256'], entryPlace)['sha256'],
        within(entryPlace, 'sha256'),
      ),
    })),
    build: parseBuild(predicate['build'], at('build')),
  }
}

function parseClosure(value: unknown, place: Place): ClosurePredicate['closure'] {
  const closure = asRecord(value, ['digest', 'format', 'paths', 'narBytes'], place)
  return {
    digest: asSha256(closure['digest'], within(place, 'digest')),
    format: asLiteral(closure['format'], ['closure-manifest-v1'], within(place, 'format')),
    paths: asCount(closure['paths'], within(place, 'paths')),
    narBytes: asCount(closure['narBytes'], within(place, 'narBytes')),
  }
}

function parseFiles(value: unknown, place: Place): ClosurePredicate['files'] {
  const files = asRecord(value, ['digest', 'format', 'count'], place)
  return {
    digest: asSha256(files['digest'], within(place, 'digest')),
    format: asLiteral(files['format'], ['closure-files-v1'], within(place, 'format')),
    count: asCount(files['count'], within(place, 'count')),
  }
}

function parseFlake(value: unknown, place: Place): FlakeFacts {
  const flake = asRecord(value, ['url', 'rev', 'narHash', 'lockDigest', 'inputs'], place)
  return {
    url: parseFact(flake['url'], within(place, 'url'), asString),
    rev: parseFact(flake['rev'], within(place, 'rev'), asString),
    narHash: parseFact(flake['narHash'], within(place, 'narHash'), asNarHash),
    lockDigest: parseFact(flake['lockDigest'], within(place, 'lockDigest'), asSha256),
    inputs: parseFact(flake['inputs'], within(place, 'inputs'), (inputs, inputsPlace) =>
      asList(inputs, inputsPlace, parseInput),
    ),
  }
}

function parseInput(value: unknown, place: Place): FlakeInput {
  const input = asRecord(value, ['name', 'url', 'rev', 'narHash', 'lastModified'], place)
  const orNull = <T>(name: string, read: (member: unknown, at: Place) => T): T | null =>
    input[name] === null ? null : read(input[name], within(place, name))
  return {
    name: asString(input['name'], within(place, 'name')),
    url: asString(input['url'], within(place, 'url')),
    rev: orNull('rev', asString),
    narHash: orNull('narHash', asNarHash),
    lastModified: orNull('lastModified', asCount),
  }
}

function parseBuild(value: unknown, place: Place): BuildFacts {
  const build = asRecord(value, Object.keys(UNKNOWN_FACTS.build), place)
  const fact = <T>(name: keyof BuildFacts, read: (member: unknown, at: Place) => T): Fact<T> =>
    parseFact(build[name], within(place, name), read)
  return {
    sandbox: fact('sandbox', asBoolean),
    sandboxFallback: fact('sandboxFallback', asBoolean),
    impure: fact('impure', asBoolean),
    substituters: fact('substituters', asStrings),
    trustedPublicKeys: fact('trustedPublicKeys', asStrings),
    requireSigs: fact('requireSigs', asBoolean),
    nixVersion: fact('nixVersion', asString),
    builtLocally: fact('builtLocally', asCount),
    substituted: fact('substituted', asCount),
    rebuild: fact('rebuild', (member, at) =>
      asLiteral(member, ['match', 'mismatch', 'not-run'], at),
    ),
  }
}

function parseFact<T>(
  value: unknown,
  place: Place,
  read: (value: unknown, place: Place) => T,
): Fact<T> {
  const fact = asRecord(value, ['value', 'source'], place)
  const source = asString(fact['source'], within(place, 'source'))
  if (source === '' || source.length > MAX_SOURCE_LENGTH)
    throw mismatch(within(place, 'source'), `1 to ${MAX_SOURCE_LENGTH} characters`, source)
  if ((fact['value'] === null) !== (source === 'unknown'))
    throw mismatch(place, 'a null value exactly with the source "unknown"', value)
  return {
    value: fact['value'] === null ? null : read(fact['value'], within(place, 'value')),
    source,
  }
}

function asList<T>(
  value: unknown,
  place: Place,
  read: (value: unknown, place: Place) => T,
): readonly T[] {
  const list = asArray(value, place)
  if (list.length > MAX_LIST_LENGTH)
    throw mismatch(place, `at most ${MAX_LIST_LENGTH} entries`, list.length)
  return list.map((entry, i) => read(entry, within(place, i)))
}

function asStrings(value: unknown, place: Place): readonly string[] {
  return asList(value, place, asString)
}

function asLiteral<T extends string>(value: unknown, literals: readonly T[], place: Place): T {
  const found = literals.find((literal) => literal === value)
  if (found === undefined) throw mismatch(place, `one of ${literals.join(', ')}`, value)
  return found
}

function asSha256(value: unknown, place: Place): Sha256 {
  return canonicalWith(parseSha256, value, place)
}

function asNarHash(value: unknown, place: Place): NarHash {
  return canonicalWith(parseNarHash, value, place)
}

function asDrvPath(value: unknown, place: Place): StorePath {
  const path = canonicalWith(parseStorePath, value, place)
  if (!path.endsWith('.drv')) throw mismatch(place, 'a path that ends in ".drv"', value)
  return path
}

// Parsers of @bagcheck/nix accept other spellings of a hash; a signed statement holds one.
function canonicalWith<T extends string>(
  parse: (text: string) => T,
  value: unknown,
  place: Place,
): T {
  const text = asString(value, place)
  let parsed: T
  try {
    parsed = parse(text)
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause)
    throw new AttestError(place.code, `${message} (at ${place.at})`, { cause })
  }
  if (parsed !== text) throw mismatch(place, `the form ${JSON.stringify(parsed)}`, text)
  return parsed
}
