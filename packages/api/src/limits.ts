// How large things may be on the wire: the texts, and from them the bodies that hold them. The agent, which
// takes types only from this package, has two of the bodies as numbers; test/limits.test.ts compares all.
const KIB = 1024
const MIB = 1024 * KIB

type Text =
  | 'evidence'
  | 'joinToken'
  | 'envelope'
  | 'loggedEnvelope'
  | 'manifest'
  | 'files'
  | 'policy'
  | 'rootChain'
  | 'checkpoint'

/** Largest texts, in bytes, before they are put into JSON. */
export const TEXT_LIMITS: Readonly<Record<Text, number>> = {
  evidence: MIB,
  joinToken: 64 * KIB,
  /** As somebody submits it: Sigstore bundle or DSSE. */
  envelope: 256 * KIB,
  /** As the log holds it. */
  loggedEnvelope: 4 * MIB,
  manifest: 16 * MIB,
  /** Some 700,000 files; a whole NixOS system has half of that. */
  files: 96 * MIB,
  policy: 64 * MIB,
  /** All versions together. */
  rootChain: 16 * MIB,
  checkpoint: MIB,
}

/**
 * A JSON body with these texts and some short members. A text grows in JSON: newlines of listings and quotes
 * of documents are escaped, which a quarter more has room for.
 */
function bodyWith(...texts: readonly Text[]): number {
  const bytes = texts.reduce((sum, text) => sum + TEXT_LIMITS[text], 0)
  return Math.ceil(bytes * 1.25) + 64 * KIB
}

/** Largest bodies that hold such texts. */
export const BODY_LIMITS: Readonly<
  Record<'enrolment' | 'attestation' | 'publishPolicy' | 'policy' | 'rootChain' | 'bundle', number>
> = {
  enrolment: bodyWith('joinToken'),
  /** Submitted, and as it is answered. */
  attestation: bodyWith('envelope', 'manifest', 'files'),
  publishPolicy: bodyWith('policy', 'envelope'),
  policy: bodyWith('policy', 'envelope', 'rootChain'),
  rootChain: bodyWith('rootChain'),
  /** An evidence bundle: its entries (with room for one system), what they commit to, and what vouches for them. */
  bundle: bodyWith(
    ...(['loggedEnvelope', 'loggedEnvelope', 'loggedEnvelope', 'loggedEnvelope'] as const),
    ...(['evidence', 'joinToken', 'manifest', 'files'] as const),
    ...(['loggedEnvelope', 'manifest', 'files'] as const),
    ...(['policy', 'rootChain', 'checkpoint'] as const),
  ),
}
