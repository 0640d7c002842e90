import type {
  AuthorityReason,
  AuthorityReceipt,
  AuthorityRecord,
  PrepareAuthorityRequest,
} from '@bagcheck/api'
import type { Call, Handler } from '../app.ts'
import { wantedBy, type ListedAuthority } from '../spiffe/authorities.ts'
import { json } from './answer.ts'

export const authorities: Handler = async ({ broker }) => {
  await broker.authorities.reload()
  return json({ authorities: broker.authorities.list().map(recordOf) })
}

export const prepareAuthority: Handler = async ({ broker, body }) => {
  const { kind } = body as PrepareAuthorityRequest
  const { trustDomain } = broker.policy.installed().verified.policy
  const made = await broker.authorities.prepare(kind, trustDomain, nowOf(broker))
  broker.logger.info({ kind, authority: made.id }, 'authority prepared')
  return json(recordOf({ ...made, local: true }), { status: 201 })
}

export const activateAuthority: Handler = async (call) =>
  taken(call, 'activated', (id, now) => call.broker.authorities.activate(id, now))

export const taintAuthority: Handler = async (call) => {
  const { reason } = call.body as AuthorityReason
  const { authorities: all, policy } = call.broker
  const receipt = await taken(call, 'tainted', (id, now) => all.taint(id, reason, now))
  // If it was the one that signs, another one does from here on.
  const installed = policy.current()
  if (installed) await all.tend(wantedBy(installed.verified.policy), nowOf(call.broker))
  return receipt
}

export const revokeAuthority: Handler = async (call) => {
  const { reason } = call.body as AuthorityReason
  return taken(call, 'revoked', (id, now) => call.broker.authorities.revoke(id, reason, now))
}

async function taken(
  { broker, params }: Call,
  what: string,
  step: (id: string, nowSeconds: number) => Promise<number>,
): Promise<Response> {
  const id = params['id'] ?? ''
  const logIndex = await step(id, nowOf(broker))
  broker.logger.warn({ authority: id, logIndex }, `authority ${what}`)
  return json({ id, logIndex } satisfies AuthorityReceipt)
}

function nowOf({ clock }: Call['broker']): number {
  return Math.floor(clock.nowMs() / 1000)
}

function recordOf(authority: ListedAuthority): AuthorityRecord {
  const { id, kind, trustDomain, local, preparedAt, expiresAt } = authority
  const state = authority.state as AuthorityRecord['state'] // those beyond are in no list
  return { id, kind, trustDomain, state, local, preparedAt, expiresAt }
}
