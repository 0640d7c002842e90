// The export of one token's evidence: everything that an auditor needs to check it offline against the
// pinned trust root, with all inclusion proofs leading to one checkpoint.
import { openCheckpoint } from '@bagcheck/log'
import { parsePolicy } from '@bagcheck/policy'
import { readEnvelopeText, parseDecision } from './audit.ts'
import type { Broker } from './broker.ts'
import { BrokerError, quote } from './error.ts'

/** `schema` of an evidence bundle. */
export const EVIDENCE_BUNDLE_SCHEMA = 'bagcheck.evidence-bundle/v1'

interface Logged {
  readonly envelope: string
  readonly leafIndex: number
  /** Base64 hashes, leaf to root. */
  readonly proof: readonly string[]
}

/** The bundle as it is written in canonical JSON. */
export interface EvidenceBundle {
  readonly schema: typeof EVIDENCE_BUNDLE_SCHEMA
  readonly token: {
    readonly jti: string
    readonly iss: string
    readonly sub: string
    readonly aud: string
    readonly iat: number
    readonly exp: number
    readonly cnf: { readonly jkt: string } | null
    readonly kid: string
    /** Tokens are not kept, nor is anything that would identify a stolen one. */
    readonly sha256: null
  }
  readonly decision: Logged
  readonly evidence: string
  readonly enrolment: Logged
  readonly joinToken: { readonly envelope: string }
  readonly attestation: Logged & { readonly manifest: string; readonly files: string }
  readonly policy: Logged & { readonly json: string }
  readonly rootChain: readonly string[]
  readonly checkpoint: string
}

/**
 * Assembles the evidence bundle of a token.
 * @throws {BrokerError} NOT_FOUND – no token has this jti; LOG_CORRUPT, STORE_*
 */
export async function assembleEvidenceBundle(broker: Broker, jti: string): Promise<EvidenceBundle> {
  const { store } = broker
  const row = await store.decision(jti)
  if (row === undefined || !row.allow)
    throw new BrokerError('NOT_FOUND', `no token has jti ${quote(jti)}`)
  const decisionText = await readEnvelopeText(broker, row.entryIndex)
  const { content, inputAttestations } = parseDecision(decisionText)
  const node = await store.node(row.node)
  const policy = await store.policy(content.policyVersion)
  const attestations = await store.attestations(content.closureDigest ?? '')
  const attestation = attestations.find((one) => inputAttestations.includes(one.envelopeSha256))
  if (node === undefined || policy === undefined || attestation === undefined)
    throw new BrokerError('LOG_CORRUPT', `expected node, policy and attestation of decision ${jti}`)

  const text = async (sha256: string): Promise<string> => {
    const body = await store.body(sha256)
    if (body === undefined)
      throw new BrokerError('LOG_CORRUPT', `expected the body ${sha256}, saw none`)
    return Buffer.from(body).toString()
  }
  const json = await text(policy.sha256)
  const bound = parsePolicy(json).profiles.get(content.profile ?? '')?.binding === 'dpop'
  // Read last: a checkpoint covers everything that was read before it.
  const checkpoint = await store.checkpoint()
  const { size } = openCheckpoint(checkpoint, broker.root.log.keys)
  const logged = async (leafIndex: number): Promise<Logged> => ({
    envelope: await readEnvelopeText(broker, leafIndex),
    leafIndex,
    proof: (await store.inclusionProof(leafIndex, size)).map((hash) =>
      Buffer.from(hash).toString('base64'),
    ),
  })
  return {
    schema: EVIDENCE_BUNDLE_SCHEMA,
    token: {
      jti: content.id,
      iss: broker.config.issuer,
      sub: content.sub ?? '',
      aud: content.audience,
      iat: content.issuedAt,
      exp: content.expiresAt ?? 0,
      cnf: bound ? { jkt: content.keyThumbprint ?? '' } : null,
      kid: broker.keys.token.kid,
      sha256: null,
    },
    decision: await logged(row.entryIndex),
    evidence: await text(row.evidenceSha256),
    enrolment: await logged(node.enrolledEntry),
    joinToken: { envelope: await text(node.joinToken.bodySha256) },
    attestation: {
      ...(await logged(attestation.entryIndex)),
      manifest: await text(attestation.manifestSha256),
      files: await text(attestation.filesSha256),
    },
    policy: { ...(await logged(policy.entryIndex)), json },
    rootChain: broker.rootChain,
    checkpoint,
  }
}
