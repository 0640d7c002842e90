// The attestation of a closure: one in-toto statement, one signature, two subjects.
//
//   subject[0]  name = root store path, sha256 = the root's NAR hash in hex,
//               annotations {narHash: SRI, narSize}; so `cosign … root.nar` works
//   subject[1]  name = "closure.manifest", sha256 = closure digest; so `cosign … NAME.manifest` works
//   predicate   nix-closure/v1, see closure-predicate.ts
//
// Verification gives what the signer said; bindContent then ties a manifest and a file list to it.
// Until both are done, nothing about the closure is known.
import { narHashDigest, parseNarHash, parseStorePath, sha256Hex, storePathOf } from '@bagcheck/nix'
import type { ClosureManifest, FileList, NarHash, Sha256, StorePath } from '@bagcheck/nix'
import { formatBundle } from './bundle.ts'
import {
  parseClosurePredicate,
  type ClosureFacts,
  type ClosurePredicate,
} from './closure-predicate.ts'
import { formatEnvelope, signEnvelope, type Envelope } from './dsse.ts'
import { AttestError, quote } from './error.ts'
import type { SigningKey, VerifyingKey } from './keys.ts'
import { closureLabels } from './labels.ts'
import { asRecord, mismatch, within, type Place } from './shape.ts'
import { formatStatement, verifyStatement, type Statement, type Subject } from './statement.ts'
import { NIX_CLOSURE_V1, STATEMENT_TYPE } from './uris.ts'

const MANIFEST_NAME = 'closure.manifest'

export interface ClosureAttestationInput {
  readonly manifest: ClosureManifest
  readonly files: FileList
  readonly facts: ClosureFacts
  readonly key: SigningKey
}

/** What a build publishes beside its manifest and file list. */
export interface ClosureAttestation {
  readonly statement: Statement<ClosurePredicate>
  readonly envelope: Envelope
  /** Content of NAME.sigstore.json. */
  readonly bundle: string
  /** Content of NAME.intoto.jsonl: one line. */
  readonly intotoJsonl: string
  /** Content of NAME.labels.json: OCI labels. */
  readonly labels: Readonly<Record<string, string>>
}

/**
 * Signs what is known about a closure.
 *
 * @throws {AttestError} ATTESTATION_CONTENT – the file list names a file outside the closure;
 *   ATTESTATION_PREDICATE – a fact that the format does not allow
 */
export function createClosureAttestation(input: ClosureAttestationInput): ClosureAttestation {
  const { manifest, files, facts, key } = input
  checkFilesBelong(manifest, files)
  const predicate = parseClosurePredicate({
    closure: {
      digest: manifest.digest,
      format: 'closure-manifest-v1',
      paths: manifest.entries.length,
      narBytes: totalNarBytes(manifest),
    },
    files: { digest: files.digest, format: 'closure-files-v1', count: files.files.length },
    system: facts.system,
    drvPath: facts.drvPath,
    output: facts.output,
    flake: facts.flake,
    successorOf: facts.successorOf,
    build: facts.build,
  })
  const statement: Statement<ClosurePredicate> = {
    _type: STATEMENT_TYPE,
    subject: closureSubjects(manifest),
    predicateType: NIX_CLOSURE_V1,
    predicate,
  }
  const envelope = signEnvelope(formatStatement(statement), [key])
  return {
    statement,
    envelope,
    bundle: formatBundle(envelope),
    intotoJsonl: `${formatEnvelope(envelope)}\n`,
    labels: closureLabels(manifest.root, predicate),
  }
}

/** The two subjects of every statement about a closure. */
export function closureSubjects(manifest: ClosureManifest): readonly [Subject, Subject] {
  const { narHash, narSize } = rootEntry(manifest)
  return [
    {
      name: manifest.root,
      digest: { sha256: narHashHex(narHash) },
      annotations: { narHash, narSize },
    },
    { name: MANIFEST_NAME, digest: { sha256: manifest.digest } },
  ]
}

/** A closure attestation whose signature and form were checked; only this module makes one. */
class VerifiedAttestation {
  // Private, so that no object literal is a VerifiedAttestation.
  readonly #predicate: ClosurePredicate
  readonly root: StorePath
  readonly rootNarHash: NarHash
  readonly rootNarSize: number
  readonly signer: VerifyingKey
  readonly envelope: Envelope
  /** SHA-256 of the signed payload. */
  readonly statementDigest: Sha256

  constructor(
    subject: RootSubject,
    predicate: ClosurePredicate,
    signer: VerifyingKey,
    envelope: Envelope,
  ) {
    this.#predicate = predicate
    this.root = subject.root
    this.rootNarHash = subject.narHash
    this.rootNarSize = subject.narSize
    this.signer = signer
    this.envelope = envelope
    this.statementDigest = sha256Hex(envelope.payload)
  }

  get predicate(): ClosurePredicate {
    return this.#predicate
  }

  get closureDigest(): Sha256 {
    return this.#predicate.closure.digest
  }

  get filesDigest(): Sha256 {
    return this.#predicate.files.digest
  }
}

export type { VerifiedAttestation }

/**
 * Verifies that one of `keys` signed a statement about a closure, and reads it.
 *
 * @throws {AttestError} DSSE_PAYLOAD_TYPE, SIGNATURE_INVALID, JSON_*, STATEMENT_*,
 *   STATEMENT_PREDICATE_TYPE; ATTESTATION_SIGNER – not exactly one signature; ATTESTATION_SUBJECT –
 *   subjects that are not the two of the format, or contradict the predicate; ATTESTATION_PREDICATE
 */
export function verifyClosureAttestation(
  envelope: Envelope,
  keys: readonly VerifyingKey[],
): VerifiedAttestation {
  // One signature, so that "who signed" has one answer for every reader of the envelope.
  if (envelope.signatures.length !== 1)
    throw new AttestError(
      'ATTESTATION_SIGNER',
      `expected exactly one signature, saw ${envelope.signatures.length}`,
    )
  const { statement, signers } = verifyStatement(envelope, keys, 1, NIX_CLOSURE_V1)
  const signer = signers[0]
  if (signer === undefined || signers.length !== 1)
    throw new AttestError('ATTESTATION_SIGNER', `expected one signer, saw ${signers.length}`)
  const predicate = parseClosurePredicate(statement.predicate)
  const subject = readSubjects(statement.subject, predicate)
  return new VerifiedAttestation(subject, predicate, signer, envelope)
}

interface RootSubject {
  readonly root: StorePath
  readonly narHash: NarHash
  readonly narSize: number
}

function readSubjects(subjects: readonly Subject[], predicate: ClosurePredicate): RootSubject {
  const place: Place = { at: 'subject', code: 'ATTESTATION_SUBJECT' }
  const [root, manifest] = subjects
  if (subjects.length !== 2 || root === undefined || manifest === undefined)
    throw mismatch(place, 'two subjects, root and manifest', subjects.length)
  if (manifest.name !== MANIFEST_NAME)
    throw mismatch(within(within(place, 1), 'name'), quote(MANIFEST_NAME), manifest.name)
  if (onlySha256(manifest, within(place, 1)) !== predicate.closure.digest)
    throw mismatch(within(place, 1), `the closure digest ${predicate.closure.digest}`, manifest)
  const read = readRoot(root, within(place, 0))
  if (predicate.closure.paths < 1 || predicate.closure.narBytes < read.narSize)
    throw mismatch(place, 'a closure that holds its root', predicate.closure)
  return read
}

function readRoot(subject: Subject, place: Place): RootSubject {
  const sha256 = onlySha256(subject, place)
  const names = ['narHash', 'narSize']
  const annotations = asRecord(subject.annotations, names, within(place, 'annotations'))
  const narSize = annotations['narSize']
  if (typeof narSize !== 'number' || !Number.isSafeInteger(narSize) || narSize < 1)
    throw mismatch(within(place, 'narSize'), 'a size in bytes', narSize)
  let root: StorePath
  let narHash: NarHash
  try {
    root = parseStorePath(subject.name)
    narHash = parseNarHash(String(annotations['narHash']))
  } catch (cause) {
    const message = cause instanceof Error ? cause.message : String(cause)
    throw new AttestError('ATTESTATION_SUBJECT', `${message} (at ${place.at})`, { cause })
  }
  if (narHash !== annotations['narHash'] || narHashHex(narHash) !== sha256)
    throw mismatch(place, `one NAR hash in both forms, ${sha256}`, annotations['narHash'])
  return { root, narHash, narSize }
}

function onlySha256(subject: Subject, place: Place): string {
  const digest = asRecord(subject.digest, ['sha256'], within(place, 'digest'))
  return String(digest['sha256'])
}

/**
 * Checks that a manifest and a file list are the ones an attestation is about.
 *
 * @throws {AttestError} ATTESTATION_CONTENT – naming what differs
 */
export function bindContent(
  attestation: VerifiedAttestation,
  manifest: ClosureManifest,
  files: FileList,
): void {
  const { closure, files: listed } = attestation.predicate
  const root = rootEntry(manifest)
  const pairs: readonly [what: string, signed: unknown, seen: unknown][] = [
    ['closure digest', closure.digest, manifest.digest],
    ['root', attestation.root, manifest.root],
    ['NAR hash of the root', attestation.rootNarHash, root.narHash],
    ['NAR size of the root', attestation.rootNarSize, root.narSize],
    ['number of paths', closure.paths, manifest.entries.length],
    ['NAR bytes', closure.narBytes, totalNarBytes(manifest)],
    ['file list digest', listed.digest, files.digest],
    ['number of files', listed.count, files.files.length],
  ]
  for (const [what, signed, seen] of pairs)
    if (signed !== seen)
      throw new AttestError(
        'ATTESTATION_CONTENT',
        `expected ${what} ${quote(signed)} as signed, saw ${quote(seen)}`,
      )
  checkFilesBelong(manifest, files)
}

// A file list is a licence to map files, so it may not name any outside the closure.
function checkFilesBelong(manifest: ClosureManifest, files: FileList): void {
  const paths = new Set<string>(manifest.entries.map((entry) => entry.path))
  let current: string | undefined
  for (const { path } of files.files) {
    if (current !== undefined && (path === current || path.startsWith(`${current}/`))) continue
    current = storePathOf(path)
    if (current === undefined || !paths.has(current))
      throw new AttestError(
        'ATTESTATION_CONTENT',
        `expected files of the closure only, saw ${quote(path)}`,
      )
  }
}

function rootEntry(manifest: ClosureManifest): { narHash: NarHash; narSize: number } {
  const entry = manifest.entries.find(({ path }) => path === manifest.root)
  if (entry === undefined) throw new TypeError('expected a manifest that holds its root')
  return entry
}

function totalNarBytes(manifest: ClosureManifest): number {
  return manifest.entries.reduce((total, { narSize }) => total + narSize, 0)
}

function narHashHex(narHash: NarHash): string {
  return Buffer.from(narHashDigest(narHash)).toString('hex')
}
