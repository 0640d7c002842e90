// Nodes, bans, authorities and the installed policy are rows that anybody can write who can write to the database. Who
// they are and whether they stand is said by the log alone: at start every entry is read, and rows that say
// less, more or something else end the start. Nodes that another replica enrolled later are checked alike.
//
// Replicas go on writing while we read. The size of the log is looked at first, then the rows, then the
// entries: what is in the log up to that size must be in the rows, and what is in the rows in the log.
import { isDeepStrictEqual } from 'node:util'
import { enrolmentSchema, type Enrolment } from '@bagcheck/api'
import { VSA_TOKEN_V1, type VerifyingKey } from '@bagcheck/attest'
import { BrokerError, quote } from './error.ts'
import { readBan } from './ban.ts'
import { checkSignature, readLoggedStatement, type LoggedStatement } from './logged-statement.ts'
import type { NodeRow } from './nodes.ts'
import type { EnvelopedEntry } from './store/log-reads.ts'
import { stepOf, type LoggedStep } from './spiffe/authority-step.ts'
import { stateAfter, type AuthorityState } from './store/authority-states.ts'
import type { StoredAuthority, StoredNode, StoredPolicy } from './store/record-reads.ts'
import type { Store } from './store/store.ts'

/** What entries are checked against. */
export interface RecordTrust {
  readonly installation: string
  /** Broker keys of every version of the trust root: what one of them signed when it was valid stands. */
  readonly brokerKeys: readonly VerifyingKey[]
}

/** What the log says, and the rows were found to say as well. */
export interface LoggedRecords {
  readonly nodes: readonly NodeRow[]
  /** Steps in the lives of authorities, in order. */
  readonly steps: readonly LoggedStep[]
  /** When the newest decision, enrolment or ban was made, in milliseconds since the epoch; 0 for none. */
  readonly latestMs: number
}

interface Ban {
  readonly entry: number
  readonly node: string
  readonly at: number
  readonly reason: string
}

interface Found {
  /** By log index. */
  readonly enrolments: Map<number, Enrolment>
  /** By node. */
  readonly bans: Map<string, Ban>
  /** Log indices, by version. */
  readonly policies: Map<number, number>
  readonly steps: LoggedStep[]
  latestSeconds: number
}

/**
 * Reads the whole log, which was verified before, and compares the rows with it.
 * @throws {BrokerError} LOG_CORRUPT – a node, a ban, an authority or the installed policy is not what the log says;
 * STORE_*
 */
export async function checkRecords(store: Store, trust: RecordTrust): Promise<LoggedRecords> {
  const { size } = await store.head()
  const [rows, policy] = [await store.nodes(), await store.installedPolicy()]
  const authorities = await store.authorities()
  const found = await readLog(store, trust)
  checkPolicy(policy, found, size)
  checkAuthorities(authorities, found.steps, size)
  const nodes = rows.map((row): NodeRow => {
    checkNode(row, found.enrolments.get(row.enrolledEntry))
    const ban = found.bans.get(row.id)
    checkBan(row, ban, size)
    return { ...row, ban: ban ?? null }
  })
  const enrolled = new Set(rows.map(({ enrolledEntry }) => enrolledEntry))
  for (const [entry, { node }] of found.enrolments)
    if (entry < size && !enrolled.has(entry))
      throw corrupt(`node ${quote(node)} of log entry ${entry}`, 'none')
  return { nodes, steps: found.steps, latestMs: found.latestSeconds * 1000 }
}

/**
 * A node that was enrolled since the start, checked against its log entry; undefined if there is none.
 * @throws {BrokerError} LOG_CORRUPT, STORE_*
 */
export async function readNode(
  store: Pick<Store, 'node' | 'entriesFrom'>,
  id: string,
  trust: RecordTrust,
): Promise<NodeRow | undefined> {
  const row = await store.node(id)
  if (row === undefined) return undefined
  const [entry] = await store.entriesFrom(row.enrolledEntry, 1)
  const statement = entry?.index === row.enrolledEntry ? readLoggedStatement(entry) : undefined
  const enrols = statement?.kind === 'enrolment'
  checkNode(row, enrols ? readEnrolment(statement, trust) : undefined)
  return row
}

async function readLog(store: Store, trust: RecordTrust): Promise<Found> {
  const found: Found = {
    enrolments: new Map(),
    bans: new Map(),
    policies: new Map(),
    steps: [],
    latestSeconds: 0,
  }
  for (let next = 0; ;) {
    const entries = await store.entriesFrom(next)
    if (entries.length === 0) return found
    for (const entry of entries) addEntry(found, entry, trust)
    next += entries.length
  }
}

function addEntry(found: Found, entry: EnvelopedEntry, trust: RecordTrust): void {
  const statement = readLoggedStatement(entry)
  const { kind, predicate } = statement
  if (kind === 'decision') {
    const { issuedAt } = (predicate[VSA_TOKEN_V1] ?? {}) as { issuedAt?: unknown }
    if (typeof issuedAt === 'number') seen(found, issuedAt)
  } else if (kind === 'observation') {
    const { observedAt } = predicate
    if (typeof observedAt === 'number') seen(found, observedAt)
  } else if (kind === 'policy') {
    const { version } = predicate
    if (typeof version === 'number') found.policies.set(version, entry.index)
  } else if (kind === 'enrolment') {
    const enrolment = readEnrolment(statement, trust)
    found.enrolments.set(entry.index, enrolment)
    seen(found, enrolment.enrolledAt)
  } else if (kind === 'ban') {
    checkSignature(statement, trust.brokerKeys)
    const said = readBan(predicate)
    checkInstallation(entry.index, said.installation, trust)
    const ban = { entry: entry.index, node: said.node, at: said.bannedAt, reason: said.reason }
    // A second one would not have been logged: the first stands.
    if (!found.bans.has(said.node)) found.bans.set(said.node, ban)
    seen(found, said.bannedAt)
  } else if (kind === 'authority') {
    const step = stepOf(statement, trust)
    found.steps.push(step)
    seen(found, step.at)
  }
}

function seen(found: Found, seconds: number): void {
  if (seconds > found.latestSeconds) found.latestSeconds = seconds
}

function readEnrolment(statement: LoggedStatement, trust: RecordTrust): Enrolment {
  const { index } = statement.entry
  checkSignature(statement, trust.brokerKeys)
  const said = enrolmentSchema.safeParse(statement.predicate)
  if (!said.success) throw corrupt(`an enrolment in log entry ${index}`, 'something else')
  checkInstallation(index, said.data.installation, trust)
  return said.data
}

function checkInstallation(index: number, installation: string, trust: RecordTrust): void {
  if (installation !== trust.installation)
    throw corrupt(
      `installation ${quote(trust.installation)} in log entry ${index}`,
      quote(installation),
    )
}

function checkNode(row: StoredNode, enrolment: Enrolment | undefined): void {
  if (enrolment === undefined)
    throw corrupt(`an enrolment of node ${quote(row.id)} in log entry ${row.enrolledEntry}`, 'none')
  const { node, nodeClass, nodeKey, tokenId, joinTokenSha256, enrolledAt, expiresAt } = enrolment
  const said = {
    id: node,
    jwk: nodeKey,
    nodeClass,
    enrolledAt,
    expiresAt,
    joinToken: { id: tokenId, bodySha256: joinTokenSha256 },
  }
  for (const [name, value] of Object.entries(said)) {
    const stored = row[name as keyof typeof said]
    if (!isDeepStrictEqual(stored, value))
      throw corrupt(`${name} ${quote(value)} of node ${quote(row.id)}, as logged`, quote(stored))
  }
}

function checkBan(row: StoredNode, ban: Ban | undefined, size: number): void {
  const stored = row.ban
  if (stored === null) {
    if (ban !== undefined && ban.entry < size)
      throw corrupt(`node ${quote(row.id)} banned by log entry ${ban.entry}`, 'it not banned')
    return
  }
  if (stored.entry !== ban?.entry || stored.at !== ban.at || stored.reason !== ban.reason)
    throw corrupt(
      ban ? `the ban of log entry ${ban.entry}` : `no ban of node ${quote(row.id)}`,
      `one of log entry ${stored.entry}`,
    )
}

function checkPolicy(row: StoredPolicy | undefined, { policies }: Found, size: number): void {
  const logged = [...policies].filter(([, entry]) => entry < size).map(([version]) => version)
  const newest = Math.max(0, ...logged)
  const installed = row?.version ?? 0
  if (installed < newest)
    throw corrupt(`policy ${newest} installed, the newest in the log`, `policy ${installed}`)
  if (row !== undefined && policies.get(row.version) !== row.entryIndex)
    throw corrupt(
      `policy ${row.version} in the log`,
      `log entry ${row.entryIndex}, which is not it`,
    )
}

/** Each row is what the steps in the log make of its authority. */
function checkAuthorities(
  rows: readonly StoredAuthority[],
  steps: readonly LoggedStep[],
  size: number,
): void {
  const logged = Map.groupBy(steps, ({ authority }) => authority)
  for (const [id, of] of logged)
    if ((of[0]?.entry ?? size) < size && !rows.some((row) => row.id === id))
      throw corrupt(`authority ${id} of log entry ${of[0]?.entry}`, 'none')
  for (const { id, state, entries } of rows) {
    const of = logged.get(id) ?? []
    const entryOf = (...actions: LoggedStep['action'][]): number | null =>
      of.find(({ action }) => actions.includes(action))?.entry ?? null
    const said = {
      prepared: entryOf('prepare'),
      activated: entryOf('activate'),
      tainted: entryOf('taint'),
      removed: entryOf('revoke', 'retire'),
    }
    // A step that another replica took while we read may be in the log and not yet in what we have of the row.
    for (const [name, entry] of Object.entries(said)) {
      const stored = entries[name as keyof typeof said]
      if (stored !== entry && !(stored === null && entry !== null && entry >= size))
        throw corrupt(`authority ${id} ${name} by log entry ${entry}`, `by ${stored}`)
    }
    const known = of.filter(({ entry }) => Object.values(entries).includes(entry))
    const superseded = steps.find(({ supersedes }) => supersedes.includes(id))?.entry ?? Infinity
    const last = known.reduce<AuthorityState | undefined>(
      (now, { action }) => stateAfter(action, now === 'old' ? 'active' : now),
      undefined,
    )
    const fits = last === 'active' ? expectedActive(superseded, size) : [last]
    if (!fits.some((one) => one === state))
      throw corrupt(`authority ${id} to be ${fits.join(' or ')}`, state)
  }
}

/** What an authority is that was activated: old, once the log says that another took its place. */
function expectedActive(superseded: number, size: number): AuthorityState[] {
  if (superseded < size) return ['old']
  return superseded === Infinity ? ['active'] : ['active', 'old']
}

function corrupt(expected: string, seenInstead: string): BrokerError {
  return new BrokerError('LOG_CORRUPT', `expected ${expected}, saw ${seenInstead}`)
}
