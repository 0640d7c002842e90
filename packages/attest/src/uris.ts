// Every URI that Bagcheck writes or demands, in one place: the namespace is a placeholder.
const NAMESPACE = 'https://bagcheck.dev'

/** `_type` of every statement. @see https://in-toto.io/Statement/v1 */
export const STATEMENT_TYPE = 'https://in-toto.io/Statement/v1'

/** What CI says about a closure. */
export const NIX_CLOSURE_V1: string = `${NAMESPACE}/attestation/nix-closure/v1`
/** Keys and thresholds of every role. */
export const TRUST_ROOT_V1: string = `${NAMESPACE}/attestation/trust-root/v1`
/** A version of the policy. */
export const POLICY_V1: string = `${NAMESPACE}/attestation/policy/v1`
/** Permission for one new node to enrol. */
export const JOIN_TOKEN_V1: string = `${NAMESPACE}/attestation/join-token/v1`
/** A node that enrolled, with its key. */
export const ENROLMENT_V1: string = `${NAMESPACE}/attestation/enrolment/v1`
/** A node that may not get tokens any more. */
export const BAN_V1: string = `${NAMESPACE}/attestation/ban/v1`

/** A step in the life of an authority that signs SVIDs. */
export const AUTHORITY_V1: string = `${NAMESPACE}/attestation/authority/v1`

/** What was observed of a unit that asked for nothing: never an approval. */
export const OBSERVATION_V1: string = `${NAMESPACE}/observation/v1`

/** Extension member of a verification summary that describes the token of a decision. */
export const VSA_TOKEN_V1: string = `${NAMESPACE}/vsa/token/v1`
/** Claim of a token that holds the digests behind it. */
export const TOKEN_CLAIM: string = `${NAMESPACE}/att`
/** `buildType` of the provenance of a flake. */
export const NIX_FLAKE_BUILD_TYPE_V1: string = `${NAMESPACE}/buildtypes/nix-flake/v1`
/** `buildType` of the provenance of a derivation of which no flake is known. */
export const NIX_DERIVATION_BUILD_TYPE_V1: string = `${NAMESPACE}/buildtypes/nix-derivation/v1`

/** @see https://slsa.dev/spec/v1.2/build-provenance */
export const SLSA_PROVENANCE_V1 = 'https://slsa.dev/provenance/v1'
/** @see https://slsa.dev/spec/v1.2/verification_summary */
export const SLSA_VSA_V1 = 'https://slsa.dev/verification_summary/v1'
