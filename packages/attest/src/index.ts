export { canonicalize, parseCanonical, MAX_CANONICAL_BYTES } from './canonical-json.ts'
export { parseStrictJson, type JsonLimits, type JsonObject } from './strict-json.ts'
export { sha256Hex } from '@bagcheck/nix'
export {
  bindContent,
  createClosureAttestation,
  verifyClosureAttestation,
  type ClosureAttestation,
  type ClosureAttestationInput,
  type VerifiedAttestation,
} from './closure-attestation.ts'
export {
  UNKNOWN,
  UNKNOWN_FACTS,
  parseClosurePredicate,
  type BuildFacts,
  type ClosureFacts,
  type ClosurePredicate,
  type Fact,
  type FlakeFacts,
  type FlakeInput,
  type Rebuild,
} from './closure-predicate.ts'
export { collectBuildFacts, type BuildFactsOptions } from './build-facts.ts'
export { type NixProgramOptions } from './nix-settings.ts'
export { readFlakeInputs } from './flake-inputs.ts'
export { createProvenance, type Provenance, type ProvenanceInput } from './provenance.ts'
export { closureLabels } from './labels.ts'
export {
  formatVerifyingKey,
  generateSigningKey,
  parseSigningKey,
  parseVerifyingKey,
  verifyingKeyFromSpki,
  verifySignature,
  type SigningKey,
  type VerifyingKey,
} from './keys.ts'
export {
  IN_TOTO_PAYLOAD_TYPE,
  addSignature,
  formatEnvelope,
  pae,
  parseEnvelope,
  parseEnvelopeLines,
  signEnvelope,
  verifyEnvelope,
  type Envelope,
  type VerifiedEnvelope,
} from './dsse.ts'
export {
  formatStatement,
  parseStatement,
  verifyStatement,
  type Statement,
  type Subject,
  type VerifiedStatement,
} from './statement.ts'
export * from './uris.ts'
export { BUNDLE_MEDIA_TYPE, formatBundle, parseBundle } from './bundle.ts'
export { firstSignatureLeaf, hashedRekordLeaf } from './rekor-entry.ts'
export { joseSignature } from './ecdsa.ts'
export {
  checkJwsHeader,
  jwkThumbprint,
  jwsSignatureHolds,
  parseJws,
  type UnverifiedJws,
} from './jws.ts'
export { ATTEST_ERROR_CODES, AttestError, type AttestErrorCode } from './error.ts'
