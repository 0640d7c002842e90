import { randomBytes } from 'node:crypto'
import type {
  BanRequest,
  ChallengeRequest,
  ChallengeResponse,
  EnrolRequest,
  NodeRecord,
} from '@bagcheck/api'
import type { Handler } from '../app.ts'
import { banNode as ban } from '../ban.ts'
import { enrolNode as enrol } from '../enrol.ts'
import { toNode } from '../nodes.ts'
import { NONCE_TTL_SECONDS } from '../nonce.ts'
import { json } from './answer.ts'

export const enrolNode: Handler = async ({ broker, body }) =>
  json(await enrol(broker, body as EnrolRequest), { status: 201 })

export const challenge: Handler = async ({ broker, body }) => {
  const { node, purpose } = body as ChallengeRequest
  const nowSeconds = Math.floor(broker.clock.nowMs() / 1000)
  await broker.nodes.admitted(node, nowSeconds)
  const answer: ChallengeResponse = {
    nonce: broker.nonces.issue({ node, purpose }, nowSeconds, randomBytes(12)),
    expiresInSeconds: NONCE_TTL_SECONDS,
    policyVersion: broker.policy.current()?.version ?? 0,
  }
  return json(answer)
}

export const nodes: Handler = async ({ broker }) => {
  // From the store: another replica may have enrolled or banned.
  const rows = await broker.store.nodes()
  await broker.lastSuccess.refresh()
  const records = rows.map((row): NodeRecord => {
    const node = toNode(row)
    return {
      node: node.id,
      nodeClass: node.nodeClass,
      keyThumbprint: node.keyThumbprint,
      enrolledAt: node.enrolledAt,
      expiresAt: node.expiresAt,
      banned: node.ban !== null,
      banReason: node.ban?.reason ?? null,
      lastSuccessAt: broker.lastSuccess.of(node.id),
    }
  })
  return json({ nodes: records })
}

export const banNode: Handler = async ({ broker, params, body }) => {
  const { reason } = body as BanRequest
  const node = params['id'] ?? ''
  return json({ node, logIndex: await ban(broker, node, reason, 'admin') })
}
