// The export of one token's evidence: everything that an auditor needs to check it offline against the
// pinned trust root, with all inclusion proofs leading to one checkpoint.
import {
  EVIDENCE_BUNDLE_SCHEMA,
  allowedDecisionSchema,
  authorityOf,
  evidenceBundleSchema,
  type AttestedEntry,
  type EvidenceBundle,
  type LoggedEnvelope,
} from '@bagcheck/api'
import { openCheckpoint } from '@bagcheck/log'
import { parsePolicy } from '@bagcheck/policy'
import type { z } from 'zod'
import { readEnvelopeText, parseDecision } from './audit.ts'
import type { Broker } from './broker.ts'
import { BrokerError, quote } from './error.ts'
import type { BodyPart } from './store/schema.ts'
import type { StoredAttestation } from './store/record-reads.ts'

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
  const { content: decided, inputAttestations } = parseDecision(decisionText)
  const content = checked(allowedDecisionSchema, decided, `the decision ${jti}`)
  const node = await store.node(row.node)
  const policy = await store.policy(content.policyVersion)
  const attestationOf = async (closureDigest: string): Promise<StoredAttestation | undefined> =>
    (await store.attestations(closureDigest)).find(({ envelopeSha256 }) =>
      inputAttestations.includes(envelopeSha256),
    )
  const attestation = await attestationOf(content.closureDigest)
  if (node === undefined || policy === undefined || attestation === undefined)
    throw new BrokerError('LOG_CORRUPT', `expected node, policy and attestation of decision ${jti}`)

  const text = async (entryIndex: number, part: BodyPart, sha256: string): Promise<string> => {
    const body = await store.body({ entryIndex, part, sha256 })
    if (body === undefined)
      throw new BrokerError('LOG_CORRUPT', `expected the ${part} of entry ${entryIndex}, saw none`)
    return Buffer.from(body).toString()
  }
  const json = await text(policy.entryIndex, 'policy', policy.sha256)
  const binding = parsePolicy(json).profiles.get(content.profile)?.binding
  const bound = binding !== undefined && binding !== 'none'
  // Read last: a checkpoint covers everything that was read before it.
  const checkpoint = await store.checkpoint()
  const { size } = openCheckpoint(checkpoint, broker.root.log.keys)
  const logged = async (leafIndex: number): Promise<LoggedEnvelope> => ({
    envelope: await readEnvelopeText(broker, leafIndex),
    leafIndex,
    proof: (await store.inclusionProof(leafIndex, size)).map((hash) =>
      Buffer.from(hash).toString('base64'),
    ),
  })
  const attested = async (row: StoredAttestation): Promise<AttestedEntry> => ({
    ...(await logged(row.entryIndex)),
    manifest: await text(row.entryIndex, 'manifest', row.manifestSha256),
    files: await text(row.entryIndex, 'files', row.filesSha256),
  })
  const systems: AttestedEntry[] = []
  for (const digest of content.systems) {
    const found = await attestationOf(digest)
    if (found === undefined)
      throw new BrokerError('LOG_CORRUPT', `expected the attestation of system ${digest}`)
    systems.push(await attested(found))
  }
  const bundle = {
    schema: EVIDENCE_BUNDLE_SCHEMA,
    token: {
      jti: content.id,
      iss: broker.config.issuer,
      sub: content.sub,
      aud: content.audience,
      iat: content.issuedAt,
      exp: content.expiresAt,
      cnf: bound ? { jkt: content.keyThumbprint } : null,
      kid: authorityOf(content) ?? broker.keys.token.kid,
      sha256: null,
    },
    decision: await logged(row.entryIndex),
    evidence: await text(row.entryIndex, 'evidence', row.evidenceSha256),
    enrolment: await logged(node.enrolledEntry),
    joinToken: {
      envelope: await text(node.enrolledEntry, 'join-token', node.joinToken.bodySha256),
    },
    attestation: await attested(attestation),
    systems,
    policy: { ...(await logged(policy.entryIndex)), json },
    rootChain: broker.rootChain,
    checkpoint,
  }
  // What an auditor would refuse must not leave here: nobody could do anything about it later.
  return checked(evidenceBundleSchema, bundle, `the evidence bundle of ${jti}`)
}

function checked<T>(schema: z.ZodType<T>, value: unknown, what: string): T {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw new BrokerError('LOG_CORRUPT', `${what}: ${issue?.path.join('.')}: ${issue?.message}`)
}
