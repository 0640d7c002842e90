// Attested closures in memory, as evaluation needs them: manifest, file list and the attestation whose
// signature was verified. What another replica took in is loaded before it is needed.
//
// A closure can have attestations by several signers. Taking in one by a signer that a role does not
// trust must not hide the one by a signer it does, so the index answers with the attestation that the
// installed policy can use, and only otherwise with the first.
import type { AttestationReceipt, AttestationRequest, AttestationResponse } from '@bagcheck/api'
import {
  bindContent,
  formatBundle,
  formatEnvelope,
  hashedRekordLeaf,
  parseBundle,
  parseEnvelope,
  parseStrictJson,
  sha256Hex,
  verifyClosureAttestation,
  verifyingKeyFromSpki,
  type Envelope,
  type VerifiedAttestation,
  type VerifyingKey,
} from '@bagcheck/attest'
import { parseFileList, parseManifest } from '@bagcheck/nix'
import type { AttestedClosure, ClosureIndex } from '@bagcheck/policy'
import { BrokerError } from './error.ts'
import type { StoredAttestation } from './store/record-reads.ts'
import type { Store } from './store/store.ts'

/** What the installed policy says about signers. */
export interface SignerRules {
  /** Every key that some role accepts attestations from. */
  signerKeys(): readonly VerifyingKey[]
  /** Whether some role that approves the closure accepts this signer. */
  accepts(closureDigest: string, keyId: string): boolean
}

/** What {@link Closures} needs of a store. */
export type AttestationStore = Pick<Store, 'attestations' | 'body' | 'commitAttestation'>

/** All attested closures. */
export class Closures implements ClosureIndex {
  readonly #store: AttestationStore
  readonly #rules: SignerRules
  readonly #known = new Map<string, AttestedClosure[]>()
  readonly #envelopes = new Set<string>()
  readonly #envelopeDigests = new WeakMap<VerifiedAttestation, string>()

  constructor(store: AttestationStore, rules: SignerRules) {
    this.#store = store
    this.#rules = rules
  }

  get(digest: string): AttestedClosure | undefined {
    const closures = this.#known.get(digest)
    if (closures === undefined || closures.length < 2) return closures?.[0]
    const usable = closures.find(({ attestation }) =>
      this.#rules.accepts(digest, attestation.signer.keyId),
    )
    return usable ?? closures[0]
  }

  /** sha256 of the logged envelope of the attestation that {@link get} answers with. */
  envelopeSha256(digest: string): string {
    const closure = this.get(digest)
    const sha256 = closure && this.#envelopeDigests.get(closure.attestation)
    if (sha256 === undefined) throw new TypeError(`no attestation of closure ${digest} is loaded`)
    return sha256
  }

  get size(): number {
    return this.#known.size
  }

  /** Loads everything that the store has. */
  async loadAll(): Promise<void> {
    for (const row of await this.#store.attestations()) await this.#load(row)
  }

  /** Loads those of the closures that are in the store and not here. */
  async prepare(digests: readonly string[]): Promise<void> {
    for (const digest of new Set(digests)) {
      if (this.#known.has(digest)) continue
      for (const row of await this.#store.attestations(digest)) await this.#load(row)
    }
  }

  /**
   * Verifies, logs and keeps a submitted attestation. The same one again is no error.
   * @throws {AttestError} it does not verify or does not match manifest and files; {NixError} manifest or
   * file list; {BrokerError} ATTESTATION_SIGNER_UNKNOWN, STORE_*
   */
  async submit(request: AttestationRequest, nowSeconds: number): Promise<AttestationReceipt> {
    const envelope = parseAny(Buffer.from(request.bundle))
    const keys = this.#rules.signerKeys()
    if (keys.length === 0)
      throw new BrokerError(
        'ATTESTATION_SIGNER_UNKNOWN',
        'expected an installed policy that names a signer, saw none; publish the policy first',
      )
    const attestation = verifyClosureAttestation(envelope, keys)
    const texts = { manifest: Buffer.from(request.manifest), files: Buffer.from(request.files) }
    const closure = bind(attestation, texts)
    const { signer, root, closureDigest } = attestation
    const body = Buffer.from(formatEnvelope(envelope))
    const known = this.#envelopes.has(sha256Hex(body))
    const { index } = await this.#store.commitAttestation({
      closureDigest,
      root,
      signerKey: Buffer.from(signer.spki).toString('base64'),
      ...texts,
      submittedAt: nowSeconds,
      leaf: hashedRekordLeaf(envelope, 0, signer),
      body,
    })
    this.#keep(closure, body)
    return { root, closureDigest, logIndex: index, known }
  }

  /** A closure's attestation as `GET /v1/attestations/{digest}` answers it. */
  async read(digest: string): Promise<AttestationResponse | undefined> {
    const rows = await this.#store.attestations(digest)
    const wanted = this.get(digest)?.attestation.signer
    const spki = wanted && Buffer.from(wanted.spki).toString('base64')
    const row = rows.find(({ signerKey }) => signerKey === spki) ?? rows[0]
    if (row === undefined) return undefined
    const [envelope, manifest, files] = await this.#bodies(row)
    return {
      root: row.root,
      closureDigest: digest,
      bundle: formatBundle(parseEnvelope(envelope)),
      manifest: manifest.toString(),
      files: files.toString(),
      logIndex: row.entryIndex,
    }
  }

  async #load(row: StoredAttestation): Promise<void> {
    const [body, manifest, files] = await this.#bodies(row)
    if (this.#envelopes.has(sha256Hex(body))) return
    // Verified again: a database is not a signature.
    const key = verifyingKeyFromSpki(row.signerKey)
    const attestation = verifyClosureAttestation(parseEnvelope(body), [key])
    this.#keep(bind(attestation, { manifest, files }), body)
  }

  async #bodies(row: StoredAttestation): Promise<[Buffer, Buffer, Buffer]> {
    const { entryIndex } = row
    const bodies = await Promise.all([
      this.#store.body({ entryIndex, part: 'envelope', sha256: row.envelopeSha256 }),
      this.#store.body({ entryIndex, part: 'manifest', sha256: row.manifestSha256 }),
      this.#store.body({ entryIndex, part: 'files', sha256: row.filesSha256 }),
    ])
    const [envelope, manifest, files] = bodies.map((body) => body && Buffer.from(body))
    if (!envelope || !manifest || !files)
      throw new BrokerError(
        'LOG_CORRUPT',
        `expected the texts of attestation ${row.closureDigest}, saw some missing`,
      )
    return [envelope, manifest, files]
  }

  #keep(closure: AttestedClosure, envelope: Buffer): void {
    const sha256 = sha256Hex(envelope)
    if (this.#envelopes.has(sha256)) return
    this.#envelopes.add(sha256)
    this.#envelopeDigests.set(closure.attestation, sha256)
    const digest = closure.attestation.closureDigest
    const others = this.#known.get(digest) ?? []
    // Same digests, same bytes: attestations of one closure share manifest and file list.
    const same = others.find(({ files }) => files.digest === closure.files.digest)
    const kept = same ? { ...same, attestation: closure.attestation } : closure
    this.#known.set(digest, [...others, kept])
  }
}

function bind(
  attestation: VerifiedAttestation,
  texts: { manifest: Buffer; files: Buffer },
): AttestedClosure {
  const manifest = parseManifest(texts.manifest)
  const files = parseFileList(texts.files)
  bindContent(attestation, manifest, files)
  return { attestation, manifest, files }
}

/** A Sigstore bundle or a raw DSSE envelope. */
function parseAny(bytes: Buffer): Envelope {
  const value = parseStrictJson(bytes)
  const isBundle = typeof value === 'object' && value !== null && 'mediaType' in value
  return isBundle ? parseBundle(bytes) : parseEnvelope(bytes)
}
