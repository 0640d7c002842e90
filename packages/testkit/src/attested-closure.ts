// Closures that exist on paper only. Manifest, file list and attestation are complete and signed, which is
// all that broker and policy see.
import {
  createClosureAttestation,
  UNKNOWN_FACTS,
  verifyClosureAttestation,
  type BuildFacts,
  type ClosureFacts,
  type SigningKey,
  type VerifiedAttestation,
} from '@bagcheck/attest'
import {
  makeStorePath,
  sha256Hex,
  type ClosureManifest,
  type FileList,
  type StorePath,
} from '@bagcheck/nix'

/** What policies of tests demand of a build. */
const DEMANDED = { sandbox: true, sandboxFallback: false, impure: false }

/** The facts of a build as policies of tests demand it, with `others`. */
export function pureFacts(others: Partial<BuildFacts> = {}): ClosureFacts {
  const learnt = Object.entries(DEMANDED).map(([name, value]) => [
    name,
    { value, source: 'nix show-config' },
  ])
  const build = { ...UNKNOWN_FACTS.build, ...Object.fromEntries(learnt), ...others }
  return { ...UNKNOWN_FACTS, build }
}

/** A closure that was attested, and what is submitted for it. */
export interface TestClosure {
  readonly attestation: VerifiedAttestation
  readonly manifest: ClosureManifest
  readonly files: FileList
  /** Body of `POST /v1/attestations`. */
  readonly request: { readonly bundle: string; readonly manifest: string; readonly files: string }
}

/** Attests a closure, with {@link pureFacts} unless told otherwise. */
export function attestClosure(
  { manifest, files }: Pick<TestClosure, 'manifest' | 'files'>,
  key: SigningKey,
  facts: ClosureFacts = pureFacts(),
): TestClosure {
  const { bundle, envelope } = createClosureAttestation({ manifest, files, facts, key })
  const attestation = verifyClosureAttestation(envelope, [key])
  const request = { bundle, manifest: manifest.text, files: files.text }
  return { attestation, manifest, files, request }
}

/** A store path with a made-up hash, the same one for the same name. */
export function inventPath(name: string): StorePath {
  return makeStorePath('source', Buffer.from(sha256Hex(name), 'hex'), name)
}
