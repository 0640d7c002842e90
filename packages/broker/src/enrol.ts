// Enrolment: a join token, signed by an enrolment key of the trust root and good for one node, and a
// proof that the caller holds the node key. The broker signs what it accepted and logs it; only the log
// entry makes a node. Of two requests with one join token the store lets one win.
//
//   proof   compact JWS {alg: ES256, typ: bagcheck-enrol+jwt, jwk}; payload {aud, iat, joinToken: sha256}
import { createPublicKey } from 'node:crypto'
import {
  ENROLMENT_SCHEMA,
  publicJwkSchema,
  type Enrolment,
  type EnrolRequest,
  type EnrolResponse,
  type PublicJwk,
} from '@bagcheck/api'
import { ENROLMENT_V1, jwkThumbprint, jwsSignatureHolds, sha256Hex } from '@bagcheck/attest'
import { verifyJoinToken, verifyJoinTokenDocument } from '@bagcheck/policy'
import { z } from 'zod'
import type { Broker } from './broker.ts'
import { BrokerError, quote } from './error.ts'
import { readJws } from './jws.ts'
import { thumbprintHex } from './keys.ts'
import { signEntry } from './signed-entry.ts'

/** `typ` of the proof. */
export const ENROL_TYP = 'bagcheck-enrol+jwt'
/** Largest difference between the node's clock and ours. */
export const MAX_ENROL_SKEW_SECONDS = 60

const proofSchema = z.strictObject({ aud: z.string(), iat: z.int(), joinToken: z.string() })

/**
 * Enrols a node.
 * @throws {PolicyError} the join token does not verify; {BrokerError} ENROL_PROOF, NODE_KEY_KNOWN – the
 * key belongs to a node already, JOIN_TOKEN_USED, STORE_*
 */
export async function enrolNode(broker: Broker, request: EnrolRequest): Promise<EnrolResponse> {
  const now = new Date(broker.clock.nowMs())
  const nowSeconds = Math.floor(now.getTime() / 1000)
  const token = verifyJoinTokenDocument(request.joinToken, broker.root)
  const joinTokenSha256 = sha256Hex(request.joinToken)
  const nodeKey = verifyProof(request.proof, broker.config.issuer, joinTokenSha256, nowSeconds)
  const keyThumbprint = jwkThumbprint(nodeKey)
  // One key under two names would have two counters, and a clone could hide behind the second: the name
  // is made from the key, so that the store refuses a second one whatever races.
  const node = `node-${thumbprintHex(keyThumbprint).slice(0, 24)}`
  const known = await broker.store.node(node)
  if (known !== undefined) {
    if (known.joinToken.id !== token.tokenId) throw keyKnown()
    // The answer got lost and the same key asks again: it is enrolled already, and nothing new is given,
    // so that it does not matter whether the join token has expired since.
    const { nodeClass, expiresAt, enrolledEntry } = known
    return { node, nodeClass, expiresAt, logIndex: enrolledEntry }
  }
  verifyJoinToken(request.joinToken, broker.root, now)
  const { installation } = broker.config
  const expiresAt = nowSeconds + token.nodeExpiresSeconds
  const predicate: Enrolment = {
    schema: ENROLMENT_SCHEMA,
    installation,
    node,
    nodeClass: token.nodeClass,
    nodeKey,
    keyThumbprint,
    tokenId: token.tokenId,
    joinTokenSha256,
    enrolledAt: nowSeconds,
    expiresAt,
  }
  const statement = {
    subject: [{ name: `node:${node}`, digest: { sha256: thumbprintHex(keyThumbprint) } }],
    predicateType: ENROLMENT_V1,
    predicate,
  }
  const row = {
    id: node,
    jwk: nodeKey,
    nodeClass: token.nodeClass,
    enrolledAt: nowSeconds,
    expiresAt,
  }
  const joinToken = { id: token.tokenId, envelope: Buffer.from(request.joinToken) }
  const entry = signEntry(statement, broker.keys.decision)
  const { index } = await broker.store
    .commitEnrolment({ node: row, joinToken, ...entry })
    .catch((error: unknown) => {
      throw error instanceof BrokerError && error.code === 'STORE_CONFLICT' ? keyKnown() : error
    })
  broker.nodes.put({ ...row, enrolledEntry: index, ban: null })
  broker.logger.info({ node, nodeClass: token.nodeClass, logIndex: index }, 'node enrolled')
  return { node, nodeClass: token.nodeClass, expiresAt, logIndex: index }
}

function keyKnown(): BrokerError {
  return new BrokerError('NODE_KEY_KNOWN', 'expected a new node key, saw that of an enrolled node')
}

function verifyProof(
  text: string,
  issuer: string,
  joinTokenSha256: string,
  nowSeconds: number,
): PublicJwk {
  const code = 'ENROL_PROOF'
  const jws = readJws(text, { typ: ENROL_TYP, key: 'jwk', malformed: code, badHeader: code })
  const jwk = publicJwkSchema.safeParse(jws.header['jwk'])
  if (!jwk.success) throw new BrokerError('ENROL_PROOF', 'expected a P-256 public key as jwk')
  let key
  try {
    key = createPublicKey({ key: { ...jwk.data }, format: 'jwk' })
  } catch (cause) {
    throw new BrokerError('ENROL_PROOF', 'expected a point on P-256 as jwk', { cause })
  }
  if (!jwsSignatureHolds(jws, key))
    throw new BrokerError('ENROL_PROOF', 'expected a signature by the key in the header')
  const payload = proofSchema.safeParse(jws.payload)
  if (!payload.success) throw new BrokerError('ENROL_PROOF', 'expected {aud, iat, joinToken}')
  const { aud, iat, joinToken } = payload.data
  if (aud !== issuer)
    throw new BrokerError('ENROL_PROOF', `expected aud ${quote(issuer)}, saw ${quote(aud)}`)
  if (Math.abs(iat - nowSeconds) > MAX_ENROL_SKEW_SECONDS)
    throw new BrokerError(
      'ENROL_PROOF',
      `expected a proof of now, saw it ${iat - nowSeconds} s off`,
    )
  if (joinToken !== joinTokenSha256)
    throw new BrokerError('ENROL_PROOF', 'expected a proof for this join token')
  return jwk.data
}
