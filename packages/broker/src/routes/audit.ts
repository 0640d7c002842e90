import type { DecisionList } from '@bagcheck/api'
import { EVIDENCE_BUNDLE_TYPE } from '@bagcheck/api'
import { canonicalize } from '@bagcheck/attest'
import type { Handler } from '../app.ts'
import { readDecision, readDecisions } from '../audit.ts'
import { BrokerError, quote } from '../error.ts'
import { assembleEvidenceBundle } from '../evidence-bundle.ts'
import { content, json } from './answer.ts'

const DEFAULT_LIMIT = 100

export const decisions: Handler = async ({ broker, query }) => {
  const limit = Number(query['limit'] ?? DEFAULT_LIMIT)
  const { after, before, allow, kind, role, unit } = query
  const records = await readDecisions(broker, {
    limit,
    ...(after !== undefined && { after: Number(after) }),
    ...(before !== undefined && { before: Number(before) }),
    ...(allow !== undefined && { allow: allow === 'true' }),
    ...(kind !== undefined && { kind: kind as 'decision' | 'observation' }),
    ...(role !== undefined && { role }),
    ...(unit !== undefined && { unit }),
  })
  const last = records.at(-1)
  const answer: DecisionList = {
    decisions: records,
    next: last !== undefined && records.length === limit ? last.logIndex : null,
  }
  return json(answer)
}

export const decision: Handler = async ({ broker, params }) => {
  const id = params['id'] ?? ''
  const record = await readDecision(broker, id)
  if (record === undefined) throw new BrokerError('NOT_FOUND', `no decision ${quote(id)}`)
  return json(record)
}

export const evidence: Handler = async ({ broker, params }) => {
  const bundle = await assembleEvidenceBundle(broker, params['jti'] ?? '')
  return content(canonicalize(bundle), EVIDENCE_BUNDLE_TYPE)
}
