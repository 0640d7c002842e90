// Judges a batch of writes against what the transaction has read, in order of arrival: each write sees
// what those before it in the batch will have done, and a refused one leaves no trace. Pure.
import { hash } from 'node:crypto'
import type { Insertable } from 'kysely'
import { BrokerError } from '../error.ts'
import { isDone, stateAfter } from './authority-states.ts'
import { bodyId, type BodyPart, type EntryKind, type Tables } from './schema.ts'
import type {
  AttestationInput,
  AuthorityInput,
  BanInput,
  Committed,
  DecisionInput,
  EnrolmentInput,
  Logged,
  PolicyInput,
  Write,
} from './writes.ts'

/** What the tables say about everything that the batch names. The plan adds what the batch will add. */
export interface Context {
  /** Size of the log: the index of the next entry. */
  readonly size: number
  policyVersion: number | null
  readonly nodes: Map<string, { expiresAt: number; bannedEntry: number | null }>
  readonly nonces: Set<string>
  /** `node counter`, see {@link counterKey}. */
  readonly counters: Set<string>
  readonly joinTokens: Set<string>
  /** sha256 of the envelope → its entry. */
  readonly attestations: Map<string, number>
  readonly authorities: Map<string, Tables['authority']>
}

/** The rows that a batch adds. */
export interface Rows {
  readonly entries: Insertable<Tables['entry']>[]
  readonly bodies: Tables['body'][]
  readonly decisions: Insertable<Tables['decision']>[]
  readonly nodes: Insertable<Tables['node_identity']>[]
  readonly bans: { id: string; entry: number; at: number; reason: string }[]
  readonly joinTokens: Insertable<Tables['join_token']>[]
  readonly attestations: Insertable<Tables['attestation']>[]
  readonly policies: Insertable<Tables['policy']>[]
  readonly authorities: Tables['authority'][]
  /** Rows as they become. */
  readonly authorityChanges: Tables['authority'][]
}

/** The rows, and for each write of the batch its index or why it was refused. */
export interface Plan {
  readonly rows: Rows
  readonly outcomes: readonly (number | BrokerError)[]
}

/** One write's answer. */
export type Outcome = Committed | BrokerError

/** Decides for each write of a batch; `context` is used up. */
export function planBatch(batch: readonly Write[], context: Context): Plan {
  const rows: Rows = {
    entries: [],
    bodies: [],
    decisions: [],
    nodes: [],
    bans: [],
    joinTokens: [],
    attestations: [],
    policies: [],
    authorities: [],
    authorityChanges: [],
  }
  const outcomes = batch.map((write) => {
    try {
      return planWrite(write, context, rows)
    } catch (error) {
      if (error instanceof BrokerError) return error
      throw error
    }
  })
  return { rows, outcomes }
}

/** What identifies a counter among those of all nodes. */
export function counterKey(node: string, counter: number): string {
  return `${counter} ${node}`
}

/** Lower-case hex. */
export function sha256(bytes: Uint8Array): string {
  return hash('sha256', bytes, 'hex')
}

// Each of these checks everything first and then changes context and rows, so that a refusal is clean.
function planWrite(write: Write, context: Context, rows: Rows): number {
  switch (write.kind) {
    case 'decision':
      return planDecision(write, context, rows)
    case 'attestation':
      return planAttestation(write, context, rows)
    case 'policy':
      return planPolicy(write, context, rows)
    case 'enrolment':
      return planEnrolment(write, context, rows)
    case 'ban':
      return planBan(write, context, rows)
    case 'authority':
      return planAuthority(write, context, rows)
  }
}

function planDecision(write: DecisionInput, context: Context, rows: Rows): number {
  const { node, nonce, counter, entryKind = 'decision' } = write
  const known = context.nodes.get(node)
  if (known === undefined) throw unknownNode(node)
  if (write.allow) {
    // What was true when the request was judged must be true when it is committed. A denial stands
    // whatever has changed: that a banned node asked is worth recording.
    if (known.bannedEntry !== null)
      throw new BrokerError('NODE_BANNED', `node ${JSON.stringify(node)} is banned`)
    if (known.expiresAt <= write.issuedAt)
      throw new BrokerError('NODE_EXPIRED', `node ${JSON.stringify(node)} has expired`)
    const { policyVersion } = write.expect
    if (policyVersion === null || policyVersion !== context.policyVersion)
      throw new BrokerError(
        'POLICY_CHANGED',
        `expected policy version ${policyVersion}, installed is ${context.policyVersion}`,
      )
    checkSigner(write, context)
  }
  if (nonce !== null && context.nonces.has(nonce))
    throw new BrokerError('NONCE_REUSED', `node ${JSON.stringify(node)} used its nonce before`)
  if (counter !== null && context.counters.has(counterKey(node, counter)))
    throw new BrokerError(
      'COUNTER_REUSED',
      `node ${JSON.stringify(node)} used its counter ${counter} before`,
    )
  if (nonce !== null) context.nonces.add(nonce)
  if (counter !== null) context.counters.add(counterKey(node, counter))
  const { index } = addEntry(entryKind, write.id, write, context, rows)
  rows.decisions.push({
    entry_idx: index,
    id: write.id,
    allow: write.allow ? 1 : 0,
    node_id: node,
    nonce,
    counter,
    role: write.role,
    audience: write.audience,
    unit: write.unit,
    issued_at: write.issuedAt,
    expires_at: write.expiresAt,
    code: write.code,
    evidence_sha256: addBody(index, 'evidence', write.evidence, rows),
  })
  return index
}

/** What is to be signed is signed by an active authority and does not outlive it. */
function checkSigner({ expect: { authority }, expiresAt }: DecisionInput, context: Context): void {
  if (typeof authority !== 'string') return
  const known = context.authorities.get(authority)
  if (known?.state !== 'active')
    throw new BrokerError(
      'AUTHORITY_CHANGED',
      `expected authority ${authority} to be active, saw it ${known?.state ?? 'unknown'}`,
    )
  if (expiresAt === null || expiresAt > known.expires_at)
    throw new BrokerError(
      'AUTHORITY_CHANGED',
      `expected authority ${authority} to live until ${expiresAt}, saw ${known.expires_at}`,
    )
}

/**
 * Who said what. Anybody can make another signature out of an ECDSA signature, so that an attestation that
 * was corrected since would come back as the newest if it were known by its envelope.
 */
export function assertionOf(
  write: Pick<AttestationInput, 'statementSha256' | 'signerKey'>,
): string {
  return sha256(Buffer.from(`${write.statementSha256} ${write.signerKey}`))
}

function planAttestation(write: AttestationInput, context: Context, rows: Rows): number {
  const assertion = assertionOf(write)
  const known = context.attestations.get(assertion)
  if (known !== undefined) return known
  const { index, body } = addEntry('attestation', write.closureDigest, write, context, rows)
  context.attestations.set(assertion, index)
  rows.attestations.push({
    entry_idx: index,
    closure_digest: write.closureDigest,
    root: write.root,
    signer_key: write.signerKey,
    assertion,
    envelope_sha256: body,
    manifest_sha256: addBody(index, 'manifest', write.manifest, rows),
    files_sha256: addBody(index, 'files', write.files, rows),
    submitted_at: write.submittedAt,
  })
  return index
}

function planPolicy(write: PolicyInput, context: Context, rows: Rows): number {
  const next = (context.policyVersion ?? 0) + 1
  if (write.version !== next)
    throw new BrokerError(
      'POLICY_VERSION',
      `expected policy version ${next}, saw version ${write.version}`,
    )
  context.policyVersion = write.version
  const { index, body } = addEntry('policy', String(write.version), write, context, rows)
  rows.policies.push({
    version: write.version,
    sha256: addBody(index, 'policy', write.json, rows),
    envelope_sha256: body,
    entry_idx: index,
    installed_at: write.installedAt,
  })
  return index
}

function planEnrolment(write: EnrolmentInput, context: Context, rows: Rows): number {
  const { node, joinToken } = write
  if (context.joinTokens.has(joinToken.id))
    throw new BrokerError(
      'JOIN_TOKEN_USED',
      `join token ${JSON.stringify(joinToken.id)} is used up`,
    )
  if (context.nodes.has(node.id))
    throw new BrokerError('STORE_CONFLICT', `node ${JSON.stringify(node.id)} is enrolled already`)
  context.joinTokens.add(joinToken.id)
  context.nodes.set(node.id, { expiresAt: node.expiresAt, bannedEntry: null })
  const { index } = addEntry('enrolment', node.id, write, context, rows)
  rows.nodes.push({
    id: node.id,
    jwk: JSON.stringify(node.jwk),
    class: node.nodeClass,
    enrolled_entry: index,
    enrolled_at: node.enrolledAt,
    expires_at: node.expiresAt,
  })
  rows.joinTokens.push({
    id: joinToken.id,
    used_at: node.enrolledAt,
    node_id: node.id,
    body_sha256: addBody(index, 'join-token', joinToken.envelope, rows),
  })
  return index
}

function planBan(write: BanInput, context: Context, rows: Rows): number {
  const known = context.nodes.get(write.node)
  if (known === undefined) throw unknownNode(write.node)
  if (known.bannedEntry !== null) return known.bannedEntry
  const { index } = addEntry('ban', write.node, write, context, rows)
  known.bannedEntry = index
  rows.bans.push({ id: write.node, entry: index, at: write.bannedAt, reason: write.reason })
  return index
}

function planAuthority(write: AuthorityInput, context: Context, rows: Rows): number {
  const { id, action, at, supersedes } = write
  const known = context.authorities.get(id)
  const state = stateAfter(action, known?.state)
  if (known !== undefined && isDone(action, known.state)) return entryOf(action, known)
  if (state === undefined)
    throw known === undefined
      ? new BrokerError('AUTHORITY_UNKNOWN', `no authority ${JSON.stringify(id)}`)
      : new BrokerError('AUTHORITY_STATE', `cannot ${action} authority ${id}: it is ${known.state}`)
  if (action === 'retire' && known !== undefined && at <= known.expires_at)
    throw new BrokerError('AUTHORITY_STATE', `authority ${id} has not expired`)
  const { index } = addEntry('authority', id, write, context, rows)
  if (known === undefined) {
    const row: Tables['authority'] = {
      id,
      kind: write.authorityKind,
      state,
      expires_at: write.expiresAt,
      prepared_entry: index,
      activated_entry: null,
      tainted_entry: null,
      removed_entry: null,
    }
    context.authorities.set(id, row)
    rows.authorities.push({ ...row })
    return index
  }
  const change = (row: Tables['authority'], to: Partial<Tables['authority']>): void => {
    Object.assign(row, to)
    rows.authorityChanges.push({ ...row })
  }
  for (const other of supersedes.map((one) => context.authorities.get(one)))
    if (other?.state === 'active') change(other, { state: 'old' })
  if (action === 'activate') change(known, { state, activated_entry: index })
  else if (action === 'taint') change(known, { state, tainted_entry: index })
  else change(known, { state, removed_entry: index })
  return index
}

function entryOf(action: AuthorityInput['action'], row: Tables['authority']): number {
  const entry =
    action === 'activate'
      ? row.activated_entry
      : action === 'taint'
        ? row.tainted_entry
        : row.removed_entry
  if (entry === null) throw new TypeError(`authority ${row.id} is ${row.state} by no entry`)
  return entry
}

function addEntry(
  kind: EntryKind,
  ref: string,
  write: Logged,
  context: Context,
  rows: Rows,
): { index: number; body: string } {
  const index = context.size + rows.entries.length
  const body = addBody(index, 'envelope', write.body, rows)
  rows.entries.push({ idx: index, kind, ref, leaf: write.leaf, body_sha256: body })
  return { index, body }
}

/** Keeps a body and returns its digest, by which whoever reads it knows that it is the same. */
function addBody(entryIndex: number, part: BodyPart, bytes: Uint8Array, rows: Rows): string {
  rows.bodies.push({ id: bodyId(entryIndex, part), bytes })
  return sha256(bytes)
}

function unknownNode(node: string): BrokerError {
  return new BrokerError('NODE_UNKNOWN', `no node ${JSON.stringify(node)} is enrolled`)
}
