// The trust root: keys and thresholds of every role, in versions that sign each other (TUF 5.3).
//
//   version 1       signed by its own `root` threshold; sha256 of its payload is what people pin
//   version n + 1   signed by the `root` thresholds of n and of n + 1; names the digest of n
//
// `policy` signs policies, `enrolment` join tokens, `broker` decisions and enrolments, `log` checkpoints.
// `approvals` is for change requests and signs nothing yet. Limits: 256 keys, 64 versions.
import {
  type Envelope,
  type SigningKey,
  type VerifyingKey,
  STATEMENT_TYPE,
  TRUST_ROOT_V1,
  formatStatement,
  parseEnvelope,
  parseStatement,
  sha256Hex,
  signEnvelope,
  verifyEnvelope,
  verifyingKeyFromSpki,
} from '@bagcheck/attest'
import type { Sha256 } from '@bagcheck/nix'
import { PolicyError, messageOf } from './error.ts'
import { installationName } from './installation-name.ts'
import {
  type Read,
  integer,
  list,
  literal,
  matching,
  nullable,
  readStrictly,
  record,
  sha256,
  simpleName,
  table,
  time,
} from './reader.ts'

export const TRUST_ROOT_SCHEMA = 'bagcheck.trust-root/v1'
/** Roles whose members sign statements; the log signs checkpoints, with keys of another kind. */
export const TRUST_ROLES = ['root', 'policy', 'approvals', 'enrolment', 'broker'] as const
export type TrustRole = (typeof TRUST_ROLES)[number]

const MAX_VERSIONS = 64
const MAX_KEYS = 256

const members = record({ threshold: integer(1, 32), keys: list(sha256, 1, 32) })
const rootReader = record({
  schema: literal(TRUST_ROOT_SCHEMA),
  installation: installationName,
  version: integer(1, 2 ** 31),
  expires: time,
  prev: nullable(record({ sha256 })),
  keys: table(
    sha256,
    record({ name: simpleName, spki: matching('base64', /^[A-Za-z0-9+/]{1,256}={0,2}$/) }),
    1,
    MAX_KEYS,
  ),
  roles: record({
    root: members,
    policy: members,
    approvals: members,
    enrolment: members,
    broker: members,
  }),
  log: record({
    origin: matching('a host name', /^[a-z0-9][a-z0-9.-]{0,252}$/),
    keys: list(matching('a C2SP verifier key', /^[^\s+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/=]+$/), 1, 8),
  }),
})
type RootDocument = Read<typeof rootReader>

export interface RoleKeys {
  readonly threshold: number
  readonly keys: readonly VerifyingKey[]
}

/** A trust root that was verified down to the pinned first version. */
export interface TrustRoot {
  readonly installation: string
  readonly version: number
  readonly expires: string
  /** Of this version's payload. */
  readonly digest: Sha256
  readonly names: ReadonlyMap<string, string>
  readonly roles: Readonly<Record<TrustRole, RoleKeys>>
  readonly log: { readonly origin: string; readonly keys: readonly string[] }
}

/** What a new version says; keys are named for people. */
export interface TrustRootInput {
  readonly installation: string
  readonly version: number
  readonly expires: string
  readonly prev: Sha256 | null
  readonly roles: Readonly<
    Record<TrustRole, { threshold: number; keys: readonly { name: string; key: VerifyingKey }[] }>
  >
  readonly log: { readonly origin: string; readonly keys: readonly string[] }
}

/** Signs a version of the trust root. @throws {PolicyError} TRUST_ROOT_FORMAT */
export function createTrustRoot(input: TrustRootInput, keys: readonly SigningKey[]): Envelope {
  const all = Object.values(input.roles).flatMap((role) => role.keys)
  const predicate = {
    schema: TRUST_ROOT_SCHEMA,
    installation: input.installation,
    version: input.version,
    expires: input.expires,
    prev: input.prev === null ? null : { sha256: input.prev },
    keys: Object.fromEntries(
      all.map(({ name, key }) => [
        key.keyId,
        { name, spki: Buffer.from(key.spki).toString('base64') },
      ]),
    ),
    roles: Object.fromEntries(
      Object.entries(input.roles).map(([role, { threshold, keys: of }]) => [
        role,
        { threshold, keys: of.map(({ key }) => key.keyId).toSorted() },
      ]),
    ),
    log: input.log,
  }
  const statement = {
    _type: STATEMENT_TYPE,
    subject: [subjectOf(input.installation)],
    predicateType: TRUST_ROOT_V1,
    predicate,
  } as const
  const payload = formatStatement(statement)
  // What could not be read back is not signed.
  rootOf(readDocument(payload), sha256Hex(payload))
  return signEnvelope(payload, keys)
}

/** The digest that people pin: of the payload, so that it stays when signatures are added. */
export function trustRootDigest(envelope: string | Uint8Array): Sha256 {
  return sha256Hex(open(envelope).payload)
}

/**
 * Verifies version 1, 2, … and returns the last.
 * @throws {PolicyError} TRUST_ROOT_FORMAT; TRUST_ROOT_PIN – version 1 is not the pinned one;
 * TRUST_ROOT_CHAIN – a version is missing, or names another predecessor or installation;
 * TRUST_ROOT_SIGNATURES; TRUST_ROOT_EXPIRED – the last version is
 * @see https://theupdateframework.github.io/specification/v1.0.34/#update-root
 */
export function verifyTrustRootChain(
  envelopes: readonly (string | Uint8Array)[],
  { pin, now }: { pin: string; now: Date },
): TrustRoot {
  if (envelopes.length === 0 || envelopes.length > MAX_VERSIONS)
    throw new PolicyError(
      'TRUST_ROOT_CHAIN',
      `expected 1 to ${MAX_VERSIONS} versions, saw ${envelopes.length}`,
    )
  let trusted: TrustRoot | null = null
  for (const text of envelopes) {
    const envelope = open(text)
    const digest = sha256Hex(envelope.payload)
    const document = readDocument(envelope.payload)
    if (trusted === null && digest !== pin)
      throw new PolicyError(
        'TRUST_ROOT_PIN',
        `expected the pinned trust root ${pin}, saw ${digest}`,
      )
    const root = rootOf(document, digest)
    checkSuccession(trusted, document)
    // TUF 5.3.4: the keys of the version that is trusted already, and its own.
    for (const signers of trusted === null ? [root] : [trusted, root])
      demandSignatures(envelope, signers, root)
    trusted = root
  }
  if (trusted === null) throw new TypeError('unreachable: there is at least one version')
  // TUF 5.3.10: only the last one must be in time.
  if (!(now.getTime() < Date.parse(trusted.expires)))
    throw new PolicyError(
      'TRUST_ROOT_EXPIRED',
      `trust root version ${trusted.version} expired at ${trusted.expires}`,
    )
  return trusted
}

function checkSuccession(
  trusted: TrustRoot | null,
  { version, prev, installation }: RootDocument,
): void {
  const expected = (trusted?.version ?? 0) + 1
  if (version !== expected)
    throw new PolicyError('TRUST_ROOT_CHAIN', `expected version ${expected}, saw ${version}`)
  if ((prev?.sha256 ?? null) !== (trusted?.digest ?? null))
    throw new PolicyError(
      'TRUST_ROOT_CHAIN',
      `expected version ${version} to follow ${trusted?.digest ?? 'nothing'}, saw ${prev?.sha256 ?? 'nothing'}`,
    )
  if (trusted !== null && trusted.installation !== installation)
    throw new PolicyError(
      'TRUST_ROOT_CHAIN',
      `expected installation ${trusted.installation}, saw ${installation}`,
    )
}

function demandSignatures(envelope: Envelope, by: TrustRoot, root: TrustRoot): void {
  const { keys, threshold } = by.roles.root
  try {
    verifyEnvelope(envelope, keys, threshold)
  } catch (cause) {
    throw new PolicyError(
      'TRUST_ROOT_SIGNATURES',
      `trust root version ${root.version} lacks the signatures of version ${by.version}'s root keys: ${messageOf(cause)}`,
      { cause },
    )
  }
}

function rootOf(document: RootDocument, digest: Sha256): TrustRoot {
  const keys = new Map([...document.keys].map(([keyId, { spki }]) => [keyId, readKey(keyId, spki)]))
  const keyOf = (keyId: string): VerifyingKey => {
    const key = keys.get(keyId)
    if (!key)
      throw new PolicyError('TRUST_ROOT_FORMAT', `expected a key ${keyId} under keys, saw none`)
    return key
  }
  const roleOf = (role: TrustRole): RoleKeys => {
    const { threshold, keys: keyIds } = document.roles[role]
    if (new Set(keyIds).size !== keyIds.length)
      throw new PolicyError('TRUST_ROOT_FORMAT', `expected each ${role} key once`)
    if (threshold > keyIds.length)
      throw new PolicyError(
        'TRUST_ROOT_FORMAT',
        `expected at least ${threshold} ${role} keys, saw ${keyIds.length}`,
      )
    return { threshold, keys: keyIds.map(keyOf) }
  }
  return {
    installation: document.installation,
    version: document.version,
    expires: document.expires,
    digest,
    names: new Map([...document.keys].map(([keyId, { name }]) => [keyId, name])),
    roles: {
      root: roleOf('root'),
      policy: roleOf('policy'),
      approvals: roleOf('approvals'),
      enrolment: roleOf('enrolment'),
      broker: roleOf('broker'),
    },
    log: document.log,
  }
}

/** A key under its own name: the name is what roles and people refer to. */
function readKey(keyId: string, spki: string): VerifyingKey {
  let key: VerifyingKey
  try {
    key = verifyingKeyFromSpki(spki)
  } catch (cause) {
    throw new PolicyError('TRUST_ROOT_FORMAT', `key ${keyId}: ${messageOf(cause)}`, { cause })
  }
  if (key.keyId !== keyId)
    throw new PolicyError(
      'TRUST_ROOT_FORMAT',
      `expected key ${keyId}, saw the bytes of ${key.keyId}`,
    )
  return key
}

function open(text: string | Uint8Array): Envelope {
  try {
    return parseEnvelope(typeof text === 'string' ? Buffer.from(text) : text)
  } catch (cause) {
    throw new PolicyError('TRUST_ROOT_FORMAT', `not a trust root: ${messageOf(cause)}`, { cause })
  }
}

/** Reads bytes whose signatures are checked right after: which keys they need stands in them. */
function readDocument(payload: Uint8Array): RootDocument {
  try {
    const statement = parseStatement(payload)
    const document = readStrictly(
      rootReader,
      statement.predicate,
      'TRUST_ROOT_FORMAT',
      'trust root',
    )
    const [subject] = statement.subject
    const { name, digest } = subjectOf(document.installation)
    if (
      statement.predicateType !== TRUST_ROOT_V1 ||
      statement.subject.length !== 1 ||
      subject?.name !== name ||
      subject.digest['sha256'] !== digest.sha256
    )
      throw new PolicyError(
        'TRUST_ROOT_FORMAT',
        'expected a trust-root statement about its installation',
      )
    return document
  } catch (cause) {
    if (cause instanceof PolicyError) throw cause
    throw new PolicyError('TRUST_ROOT_FORMAT', `not a trust root: ${messageOf(cause)}`, { cause })
  }
}

/** Subject of every statement that is about an installation and nothing smaller. */
export function subjectOf(installation: string): { name: string; digest: { sha256: string } } {
  return { name: `installation:${installation}`, digest: { sha256: sha256Hex(installation) } }
}
