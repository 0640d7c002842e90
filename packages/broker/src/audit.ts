// Decisions as auditors read them: the row says where, the logged envelope says what.
import {
  decisionContentSchema,
  observedSchema,
  summarySchema,
  type DecisionContent,
  type DecisionRecord,
  type Observed,
} from '@bagcheck/api'
import { OBSERVATION_V1, parseEnvelope, parseStatement, VSA_TOKEN_V1 } from '@bagcheck/attest'
import type { Broker } from './broker.ts'
import { BrokerError, quote } from './error.ts'
import type { DecisionQuery, StoredDecision } from './store/record-reads.ts'

/** Decisions, as the query orders them. @throws {BrokerError} STORE_*, LOG_CORRUPT */
export async function readDecisions(
  broker: Broker,
  query: DecisionQuery,
): Promise<DecisionRecord[]> {
  const rows = await broker.store.decisions(query)
  return Promise.all(rows.map((row) => complete(broker, row)))
}

/** One decision, or undefined. @throws {BrokerError} STORE_*, LOG_CORRUPT */
export async function readDecision(
  broker: Broker,
  id: string,
): Promise<DecisionRecord | undefined> {
  const row = await broker.store.decision(id)
  return row && complete(broker, row)
}

/** The text of a log entry's envelope. @throws {BrokerError} LOG_CORRUPT – it was not kept */
export async function readEnvelopeText({ store }: Broker, index: number): Promise<string> {
  const entry = await store.entry(index)
  const body =
    entry && (await store.body({ entryIndex: index, part: 'envelope', sha256: entry.bodySha256 }))
  if (body === undefined)
    throw new BrokerError('LOG_CORRUPT', `expected the envelope of log entry ${index}, saw none`)
  return Buffer.from(body).toString()
}

/** A decision as its statement tells it. */
export interface ReadDecision {
  readonly content: DecisionContent
  /** sha256 of the envelopes that it rests on. */
  readonly inputAttestations: readonly string[]
}

/** What a decision's envelope says. @throws {BrokerError} LOG_CORRUPT – not what decision.ts writes */
export function parseDecision(envelopeText: string): ReadDecision {
  const { predicate } = parseStatement(parseEnvelope(Buffer.from(envelopeText)).payload)
  const summary = summarySchema.safeParse(predicate)
  const members = (predicate ?? {}) as Readonly<Record<string, unknown>>
  const content = decisionContentSchema.safeParse(members[VSA_TOKEN_V1])
  if (!summary.success || !content.success) {
    const [issue] = (summary.error ?? content.error)?.issues ?? []
    throw new BrokerError(
      'LOG_CORRUPT',
      `expected a decision of this version, saw something else at ${quote(issue?.path.join('.'))}`,
    )
  }
  const inputAttestations = summary.data.inputAttestations.map(({ digest }) => digest.sha256)
  return { content: content.data, inputAttestations }
}

async function complete(broker: Broker, row: StoredDecision): Promise<DecisionRecord> {
  const text = await readEnvelopeText(broker, row.entryIndex)
  const observed = parseObserved(text)
  if (observed !== undefined) return observation(row, observed)
  const { content } = parseDecision(text)
  return {
    id: row.id,
    logIndex: row.entryIndex,
    allow: row.allow,
    at: row.issuedAt,
    node: row.node,
    unit: content.unit,
    role: row.role,
    audience: content.audience,
    purpose: content.purpose,
    closureDigest: content.closureDigest,
    root: content.root,
    expiresAt: row.expiresAt,
    wouldAllow: null,
    reasons: content.reasons,
  }
}

function observation(row: StoredDecision, observed: Observed): DecisionRecord {
  const { unit, role, audience, closureDigest, root, wouldAllow, reasons } = observed
  return {
    ...{ id: row.id, logIndex: row.entryIndex, allow: false, at: row.issuedAt, node: row.node },
    ...{ unit, role, audience, purpose: 'observe', closureDigest, root, expiresAt: null },
    ...{ wouldAllow, reasons },
  }
}

/** What an observation's envelope says; undefined for one of a decision. @throws {BrokerError} LOG_CORRUPT */
function parseObserved(envelopeText: string): Observed | undefined {
  const statement = parseStatement(parseEnvelope(Buffer.from(envelopeText)).payload)
  if (statement.predicateType !== OBSERVATION_V1) return undefined
  const parsed = observedSchema.safeParse(statement.predicate)
  if (parsed.success) return parsed.data
  throw new BrokerError('LOG_CORRUPT', 'expected an observation of this version, saw another')
}
