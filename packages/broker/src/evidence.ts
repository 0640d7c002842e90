// Evidence, from bytes to facts, in two steps with the node's signature between them:
//
//   identify   size → header → nonce (ours, unexpired, used up now) → node → signature over these bytes
//   check      schema → issuer, installation, trust root → time → audience → purpose
//
// What fails in the first step came from anybody and is only counted. What fails in the second came
// from an enrolled node and becomes a logged denial. Until the signature held, three strings of the
// payload are looked at: the node's name, the nonce and the purpose.
import { hash } from 'node:crypto'
import { evidenceSchema, EVIDENCE_TYP, MAX_EVIDENCE_BYTES, type Evidence } from '@bagcheck/api'
import { jwsSignatureHolds, type UnverifiedJws } from '@bagcheck/attest'
import type { Sha256 } from '@bagcheck/nix'
import type { z } from 'zod'
import { BrokerError, quote } from './error.ts'
import { readJws } from './jws.ts'
import type { Node, NodeBook } from './nodes.ts'
import type { NonceBook, NonceUse } from './nonce.ts'

/** Largest difference between the agent's clock and ours. */
export const MAX_EVIDENCE_SKEW_SECONDS = 30

/** Bytes that an enrolled node signed over a nonce of ours; their content is not checked yet. */
export interface Identified<P extends NonceUse['purpose']> {
  readonly node: Node
  readonly nonce: string
  readonly purpose: P
  readonly payload: unknown
  readonly payloadText: string
  /** The compact JWS as received. */
  readonly text: string
  /** sha256 of {@link text}. */
  readonly sha256: Sha256
}

/** What an exchange takes: nothing that was stated for an observation. */
export type IdentifiedEvidence = Identified<'issue' | 'renew'>

let create: (identified: IdentifiedEvidence, content: Evidence) => VerifiedEvidence

/** Evidence that passed every check; only {@link checkEvidence} makes one. */
export class VerifiedEvidence {
  readonly #identified: IdentifiedEvidence
  readonly #content: Evidence

  private constructor(identified: IdentifiedEvidence, content: Evidence) {
    this.#identified = identified
    this.#content = content
  }

  static {
    create = (identified, content) => new VerifiedEvidence(identified, content)
  }

  get node(): Node {
    return this.#identified.node
  }

  get sha256(): Sha256 {
    return this.#identified.sha256
  }

  get text(): string {
    return this.#identified.text
  }

  get content(): Evidence {
    return this.#content
  }
}

/**
 * Finds out which node made the evidence; uses the nonce up whatever comes after.
 * @throws {BrokerError} EVIDENCE_TOO_LARGE, EVIDENCE_MALFORMED, EVIDENCE_HEADER; NONCE_INVALID,
 * NONCE_EXPIRED, NONCE_REUSED; NODE_UNKNOWN, NODE_BANNED, NODE_EXPIRED; EVIDENCE_KEY – another key's
 * name; EVIDENCE_SIGNATURE
 */
export function identifyEvidence(text: string, context: Identifying): Promise<IdentifiedEvidence> {
  return identify(text, context, { typ: EVIDENCE_TYP, purposes: ['issue', 'renew'] })
}

/** What identifying needs. */
export interface Identifying {
  readonly nonces: NonceBook
  readonly nodes: NodeBook
  readonly nowSeconds: number
}

/** As {@link identifyEvidence}, for one type of document with the purposes that it may have. */
export async function identify<P extends NonceUse['purpose']>(
  text: string,
  context: Identifying,
  form: { readonly typ: string; readonly purposes: readonly P[] },
): Promise<Identified<P>> {
  if (text.length > MAX_EVIDENCE_BYTES)
    throw new BrokerError(
      'EVIDENCE_TOO_LARGE',
      `expected evidence of at most ${MAX_EVIDENCE_BYTES} bytes, saw ${text.length}`,
    )
  const jws = readJws(text, {
    typ: form.typ,
    key: 'kid',
    malformed: 'EVIDENCE_MALFORMED',
    badHeader: 'EVIDENCE_HEADER',
  })
  const { iss, nonce, purpose } = peek(jws, form.purposes)
  context.nonces.consume(nonce, { node: iss, purpose }, context.nowSeconds)
  const node = await context.nodes.admitted(iss, context.nowSeconds)
  if (jws.header['kid'] !== node.keyThumbprint)
    throw new BrokerError(
      'EVIDENCE_KEY',
      `expected the key of node ${quote(node.id)}, saw kid ${quote(jws.header['kid'])}`,
    )
  if (!jwsSignatureHolds(jws, node.key))
    throw new BrokerError('EVIDENCE_SIGNATURE', 'expected a signature by the key of the node')
  const sha256 = hash('sha256', text, 'hex') as Sha256
  const { payload, payloadText } = jws
  return { node, nonce, purpose, payload, payloadText, text, sha256 }
}

/** What this broker is, as evidence must name it. */
export interface EvidenceExpectation {
  readonly issuer: string
  readonly installation: string
  /** Pinned digest of the trust root. */
  readonly trustRoot: string
  /** The audience that was asked for; null where only the evidence names one. */
  readonly audience: string | null
  /** Thumbprint of the key that is to be certified; null where none is. */
  readonly workloadKey: string | null
  readonly nowSeconds: number
}

/**
 * Checks what the node signed.
 * @throws {BrokerError} EVIDENCE_SCHEMA, EVIDENCE_ISSUER – made for another broker;
 * EVIDENCE_INSTALLATION, EVIDENCE_TRUST_ROOT, EVIDENCE_TIME, EVIDENCE_AUDIENCE, EVIDENCE_PURPOSE;
 * EVIDENCE_WORKLOAD_KEY – measured with another key than the one to be certified
 */
export function checkEvidence(
  identified: IdentifiedEvidence,
  expected: EvidenceExpectation,
): VerifiedEvidence {
  const content = readStatement(identified, expected, evidenceSchema)
  if (expected.audience !== null)
    expectEqual('EVIDENCE_AUDIENCE', 'audience', expected.audience, content.facts.audience)
  if ((content.facts.purpose === 'renew') !== (content.previousDecision !== null))
    throw new BrokerError(
      'EVIDENCE_PURPOSE',
      'expected a renewal to name the decision it renews, and an issue to name none',
    )
  if (expected.workloadKey !== null && content.workloadKey !== expected.workloadKey)
    throw new BrokerError(
      'EVIDENCE_WORKLOAD_KEY',
      `expected evidence with workload key ${quote(expected.workloadKey)}, saw ${quote(content.workloadKey)}`,
    )
  return create(identified, content)
}

/** What every statement of an agent names: this broker, this installation, now. */
interface Stated {
  readonly aud: string
  readonly installation: string
  readonly trustRoot: string
  readonly iat: number
}

/**
 * Reads what the node signed and checks that it was made for us and now.
 * @throws {BrokerError} EVIDENCE_SCHEMA, EVIDENCE_ISSUER, EVIDENCE_INSTALLATION, EVIDENCE_TRUST_ROOT,
 * EVIDENCE_TIME
 */
export function readStatement<T extends Stated>(
  identified: Pick<IdentifiedEvidence, 'payload' | 'payloadText'>,
  expected: Pick<EvidenceExpectation, 'issuer' | 'installation' | 'trustRoot' | 'nowSeconds'>,
  schema: z.ZodType<T>,
): T {
  checkText(identified)
  const parsed = schema.safeParse(identified.payload)
  if (!parsed.success) {
    const issue = parsed.error.issues[0]
    const where = quote(issue?.path.join('.') ?? '')
    throw new BrokerError('EVIDENCE_SCHEMA', `evidence is malformed at ${where}: ${issue?.message}`)
  }
  const content = parsed.data
  expectEqual('EVIDENCE_ISSUER', 'broker', expected.issuer, content.aud)
  expectEqual('EVIDENCE_INSTALLATION', 'installation', expected.installation, content.installation)
  expectEqual('EVIDENCE_TRUST_ROOT', 'trust root', expected.trustRoot, content.trustRoot)
  const skew = content.iat - expected.nowSeconds
  if (Math.abs(skew) > MAX_EVIDENCE_SKEW_SECONDS)
    throw new BrokerError(
      'EVIDENCE_TIME',
      `expected evidence of now (± ${MAX_EVIDENCE_SKEW_SECONDS} s), saw it ${skew} s off`,
    )
  return content
}

// Half surrogates and NUL can be written in JSON, but not in canonical JSON or in a database.
function checkText({ payloadText }: Pick<IdentifiedEvidence, 'payloadText'>): void {
  if (/(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/.test(payloadText))
    throw new BrokerError('EVIDENCE_SCHEMA', 'expected text without NUL and half surrogates')
}

function expectEqual(
  code: 'EVIDENCE_ISSUER' | 'EVIDENCE_INSTALLATION' | 'EVIDENCE_TRUST_ROOT' | 'EVIDENCE_AUDIENCE',
  what: string,
  expected: string,
  seen: string,
): void {
  if (seen !== expected)
    throw new BrokerError(
      code,
      `expected evidence for ${what} ${quote(expected)}, saw ${quote(seen)}`,
    )
}

function peek<P extends NonceUse['purpose']>(
  jws: UnverifiedJws,
  purposes: readonly P[],
): { iss: string; nonce: string; purpose: P } {
  const payload = jws.payload as { iss?: unknown; nonce?: unknown; facts?: unknown } | null
  const facts = payload?.facts as { purpose?: unknown } | null | undefined
  const { iss, nonce } = payload ?? {}
  const purpose = purposes.find((one) => one === facts?.purpose)
  if (typeof iss !== 'string' || iss.length > 128 || typeof nonce !== 'string')
    throw new BrokerError('EVIDENCE_MALFORMED', 'expected evidence to name its node and nonce')
  if (purpose === undefined)
    throw new BrokerError('EVIDENCE_MALFORMED', 'expected evidence to name its purpose')
  return { iss, nonce, purpose }
}
