// Attested closures in memory, as evaluation needs them: manifest, file list and the attestation whose
// signature was verified. What the store has is loaded before it is needed, and the rest of it in the
// background of a start, so that a start does not take longer with every closure that was ever attested.
//
// A closure can have several attestations. One by a signer that a role does not trust must not hide the
// one by a signer it does, and a signer who attests again corrects what was said before. So the index
// answers with the newest, by its place in the log, of those by signers whom the asker takes, and only
// otherwise with the newest of all. What a signer said once is logged once, whatever signature comes with
// it later: else whoever has an old attestation could make it the newest. One that a signer never brought
// here counts from when anybody brings it; a closure is withdrawn by policy, not by attesting it anew.
import { setImmediate } from 'node:timers/promises'
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

/** A closure by one of its attestations, and what the log knows of that one. */
interface Kept {
  readonly closure: AttestedClosure
  readonly logIndex: number
  /** sha256 of the logged envelope. */
  readonly envelopeSha256: string
}

/** What names an attestation: a statement, and who signed it. */
export interface Attested {
  readonly statementDigest: string
  readonly signer: { readonly keyId: string }
}

/** All attested closures. */
export class Closures implements ClosureIndex {
  readonly #store: AttestationStore
  readonly #rules: SignerRules
  /** By closure digest, in the order of the log. */
  readonly #known = new Map<string, Kept[]>()
  /** By closure digest: resolves when all that the store has of it is here. */
  readonly #loads = new Map<string, Promise<void>>()
  readonly #envelopes = new Set<string>()

  constructor(store: AttestationStore, rules: SignerRules) {
    this.#store = store
    this.#rules = rules
  }

  get(
    digest: string,
    accepts: (keyId: string) => boolean = () => true,
  ): AttestedClosure | undefined {
    const all = this.#known.get(digest) ?? []
    const usable = all.findLast(({ closure }) => accepts(closure.attestation.signer.keyId))
    return (usable ?? all.at(-1))?.closure
  }

  /**
   * sha256 of the logged envelope of an attestation that {@link get} answered with. It is named by its
   * statement and signer, because another one may have come in since.
   */
  envelopeSha256(digest: string, { statementDigest, signer }: Attested): string {
    const kept = this.#known
      .get(digest)
      ?.find(({ closure: { attestation } }) => isSame(attestation, { statementDigest, signer }))
    if (kept === undefined)
      throw new TypeError(`attestation ${statementDigest} of closure ${digest} is not loaded`)
    return kept.envelopeSha256
  }

  get size(): number {
    return this.#known.size
  }

  /**
   * Loads everything that the store has, one closure in a turn of the event loop, until `signal` aborts.
   * One that cannot be loaded is told to `failed`; a request that needs it will fail likewise.
   */
  async loadAll(signal: AbortSignal, failed: (error: unknown) => void): Promise<void> {
    const rows = await this.#store.attestations()
    for (const digest of new Set(rows.map(({ closureDigest }) => closureDigest))) {
      await setImmediate()
      if (signal.aborted) return
      await this.#complete(digest).catch(failed)
    }
  }

  /** Loads those of the closures that are in the store and not here. */
  async prepare(digests: readonly string[]): Promise<void> {
    for (const digest of new Set(digests)) await this.#complete(digest)
  }

  /** Lets the next request for a closure look for attestations of it that another replica took in since. */
  lookAgain(): void {
    this.#loads.clear()
  }

  /** Once all attestations of a closure are loaded, and not when the first is, the right one can be chosen. */
  #complete(digest: string): Promise<void> {
    const known = this.#loads.get(digest)
    if (known !== undefined) return known
    const load = this.#loadClosure(digest)
    this.#loads.set(digest, load)
    return load
  }

  async #loadClosure(digest: string): Promise<void> {
    let whole = false
    try {
      for (const row of await this.#store.attestations(digest)) await this.#load(row)
      whole = this.#known.has(digest)
    } finally {
      // Nothing is there yet, or it could not be read: whoever asks next looks again.
      if (!whole) this.#loads.delete(digest)
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
    bind(attestation, texts)
    const { signer, root, closureDigest } = attestation
    const known = this.#known
      .get(closureDigest)
      ?.some((other) => isSame(other.closure.attestation, attestation))
    const { index } = await this.#store.commitAttestation({
      closureDigest,
      root,
      statementSha256: attestation.statementDigest,
      signerKey: Buffer.from(signer.spki).toString('base64'),
      ...texts,
      submittedAt: nowSeconds,
      leaf: hashedRekordLeaf(envelope, 0, signer),
      body: Buffer.from(formatEnvelope(envelope)),
    })
    // What was logged, which is another envelope if the same signer had said the same before.
    const rows = await this.#store.attestations(closureDigest)
    for (const row of rows) if (row.entryIndex === index) await this.#load(row)
    return { root, closureDigest, logIndex: index, known: known === true }
  }

  /** A closure's attestation as `GET /v1/attestations/{digest}` answers it. */
  async read(digest: string): Promise<AttestationResponse | undefined> {
    const rows = await this.#store.attestations(digest)
    const chosen = this.get(digest, (keyId) => this.#rules.accepts(digest, keyId))
    const wanted = chosen && this.envelopeSha256(digest, chosen.attestation)
    const row = rows.find(({ envelopeSha256 }) => envelopeSha256 === wanted) ?? rows.at(-1)
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
    if (this.#envelopes.has(row.envelopeSha256)) return
    const [body, manifest, files] = await this.#bodies(row)
    // Verified again: a database is not a signature.
    const key = verifyingKeyFromSpki(row.signerKey)
    const attestation = verifyClosureAttestation(parseEnvelope(body), [key])
    this.#keep(bind(attestation, { manifest, files }), body, row.entryIndex)
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

  #keep(closure: AttestedClosure, envelope: Buffer, logIndex: number): void {
    const envelopeSha256 = sha256Hex(envelope)
    if (this.#envelopes.has(envelopeSha256)) return
    this.#envelopes.add(envelopeSha256)
    const digest = closure.attestation.closureDigest
    const others = this.#known.get(digest) ?? []
    // Same digests, same bytes: attestations of one closure share manifest and file list.
    const same = others.find(
      (other) => other.closure.files.digest === closure.files.digest,
    )?.closure
    const kept = {
      closure: same ? { ...same, attestation: closure.attestation } : closure,
      logIndex,
      envelopeSha256,
    }
    // Requests end in any order, and another replica may have logged one before ours.
    const inOrder = [...others, kept].toSorted((a, b) => a.logIndex - b.logIndex)
    this.#known.set(digest, inOrder)
  }
}

function isSame(one: Attested, other: Attested): boolean {
  return one.statementDigest === other.statementDigest && one.signer.keyId === other.signer.keyId
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
