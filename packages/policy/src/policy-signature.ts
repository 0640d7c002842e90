// A policy version and its signatures: one DSSE envelope over a statement about sha256(policy.json),
// signed by a threshold of different `policy` keys of the trust root. Order of the checks: signatures
// first, then everything that the signed bytes say.
import {
  type Envelope,
  type SigningKey,
  POLICY_V1,
  STATEMENT_TYPE,
  addSignature,
  formatStatement,
  parseEnvelope,
  sha256Hex,
  signEnvelope,
  verifyStatement,
} from '@bagcheck/attest'
import type { Sha256 } from '@bagcheck/nix'
import { PolicyError, messageOf } from './error.ts'
import { RoleIndex } from './role-index.ts'
import { type Policy, parsePolicy } from './policy.ts'
import {
  type Read,
  integer,
  literal,
  nullable,
  readStrictly,
  record,
  sha256,
  simpleName,
  time,
} from './reader.ts'
import type { TrustRoot } from './trust-root.ts'

export const POLICY_STATEMENT_SCHEMA = 'bagcheck.policy-statement/v1'
const SUBJECT_NAME = 'policy.json'

const statementReader = record({
  schema: literal(POLICY_STATEMENT_SCHEMA),
  installation: simpleName,
  version: integer(1, 2 ** 31),
  prev: nullable(record({ sha256 })),
  notBefore: nullable(time),
  expires: time,
})
type PolicyStatement = Read<typeof statementReader>

/** The version that is in force: what a new one must follow. */
export interface InstalledVersion {
  readonly version: number
  readonly sha256: string
}

/** What was verified about a policy. */
interface Checked {
  readonly policy: Policy
  readonly sha256: Sha256
  readonly statement: PolicyStatement
  readonly signers: readonly string[]
  readonly trustRootExpires: string
}

let create: (checked: Checked) => VerifiedPolicy

/** A policy whose signatures and statement were checked. Only this module makes one. */
export class VerifiedPolicy {
  readonly #policy: Policy
  /** Of its canonical JSON. */
  readonly sha256: Sha256
  /** Of the version before; null for the first. */
  readonly previous: string | null
  /** Key ids of those who signed. */
  readonly signers: readonly string[]
  /** Roles by unit, roots by digest. */
  readonly index: RoleIndex

  /** Until when the keys that signed it are trusted. */
  readonly trustRootExpires: string
  /** From when and until when it may be decided by, in milliseconds since 1970. */
  readonly inForceMs: { readonly from: number; readonly until: number }

  private constructor({ policy, sha256: digest, statement, signers, trustRootExpires }: Checked) {
    this.#policy = policy
    this.sha256 = digest
    this.previous = statement.prev?.sha256 ?? null
    this.signers = signers
    this.index = new RoleIndex(policy)
    this.trustRootExpires = trustRootExpires
    this.inForceMs = {
      from: policy.notBefore === null ? 0 : Date.parse(policy.notBefore),
      until: Math.min(Date.parse(policy.expires), Date.parse(trustRootExpires)),
    }
  }

  static {
    create = (checked) => new VerifiedPolicy(checked)
  }

  get policy(): Policy {
    return this.#policy
  }

  get version(): number {
    return this.#policy.version
  }
}

/** The statement about a compiled policy, with its first signatures. @throws {PolicyError} POLICY_FORMAT */
export function createPolicyEnvelope(
  json: string,
  prev: string | null,
  keys: readonly SigningKey[],
): Envelope {
  return signEnvelope(policyStatement(json, prev), keys)
}

/**
 * Adds a signature after checking that the envelope is about this very policy.
 * @throws {PolicyError} POLICY_STATEMENT; {AttestError} DSSE_SIGNED_TWICE
 */
export function addPolicySignature(
  json: string,
  prev: string | null,
  envelope: Envelope,
  key: SigningKey,
): Envelope {
  if (!Buffer.from(envelope.payload).equals(policyStatement(json, prev)))
    throw new PolicyError(
      'POLICY_STATEMENT',
      'expected an envelope about this policy and its predecessor, saw another; nothing was signed',
    )
  return addSignature(envelope, key)
}

function policyStatement(json: string, prev: string | null): Uint8Array {
  const { installation, version, notBefore, expires } = parsePolicy(json)
  return formatStatement({
    _type: STATEMENT_TYPE,
    subject: [{ name: SUBJECT_NAME, digest: { sha256: sha256Hex(json) } }],
    predicateType: POLICY_V1,
    predicate: {
      schema: POLICY_STATEMENT_SCHEMA,
      installation,
      version,
      prev: prev === null ? null : { sha256: prev },
      notBefore,
      expires,
    },
  })
}

/** A policy as it travels: canonical JSON and its envelope, both texts. */
export interface SignedPolicy {
  readonly json: string
  readonly envelope: string
}

/**
 * Verifies who signed a policy and what for, whatever its age and place in the sequence: what an auditor
 * needs. To install one, use {@link verifyPolicy}.
 * @throws {PolicyError} POLICY_SIGNATURES, POLICY_STATEMENT, POLICY_INSTALLATION, POLICY_FORMAT
 */
export function verifyPolicyDocument(signed: SignedPolicy, root: TrustRoot): VerifiedPolicy {
  const { statement, signers } = openSigned(signed, root)
  const digest = sha256Hex(signed.json)
  const [subject] = statement.subject
  if (
    statement.subject.length !== 1 ||
    subject?.name !== SUBJECT_NAME ||
    subject.digest['sha256'] !== digest
  )
    throw new PolicyError(
      'POLICY_STATEMENT',
      `expected signatures over ${SUBJECT_NAME} ${digest}, saw them over ${subject?.digest['sha256'] ?? 'nothing'}`,
    )
  const said = readStrictly(
    statementReader,
    statement.predicate,
    'POLICY_STATEMENT',
    'policy statement',
  )
  const policy = parsePolicy(signed.json)
  for (const name of ['installation', 'version', 'notBefore', 'expires'] as const)
    if (said[name] !== policy[name])
      throw new PolicyError(
        'POLICY_STATEMENT',
        `expected ${name} ${said[name]} as signed, saw ${policy[name]}`,
      )
  if (policy.installation !== root.installation)
    throw new PolicyError(
      'POLICY_INSTALLATION',
      `expected a policy of installation ${root.installation}, saw ${policy.installation}`,
    )
  return create({
    policy,
    sha256: digest,
    statement: said,
    signers,
    trustRootExpires: root.expires,
  })
}

/**
 * Verifies a policy that is to be put in force after `installed` (null: it is the first).
 * @throws {PolicyError} what {@link verifyPolicyDocument} throws; POLICY_EXPIRED, POLICY_NOT_YET_VALID; POLICY_ROLLBACK – lower than
 * the installed version, or the same version with other content; POLICY_VERSION_SKIPPED; POLICY_PREVIOUS
 */
export function verifyPolicy(
  signed: SignedPolicy,
  root: TrustRoot,
  { installed, now }: { installed: InstalledVersion | null; now: Date },
): VerifiedPolicy {
  const verified = verifyPolicyDocument(signed, root)
  const { version, expires, notBefore } = verified.policy
  // Written so that a time that is not one refuses.
  if (!(now.getTime() < Date.parse(expires)))
    throw new PolicyError('POLICY_EXPIRED', `policy version ${version} expired at ${expires}`)
  if (installed !== null && version === installed.version && verified.sha256 === installed.sha256)
    return verified
  // It would replace the version that is in force with one that denies everything until then.
  if (notBefore !== null && !(now.getTime() >= Date.parse(notBefore)))
    throw new PolicyError(
      'POLICY_NOT_YET_VALID',
      `policy version ${version} is in force from ${notBefore}; publish it then`,
    )
  const next = (installed?.version ?? 0) + 1
  if (version < next)
    throw new PolicyError(
      'POLICY_ROLLBACK',
      `expected version ${next}, saw version ${version}, which is not newer than what is installed`,
    )
  if (version > next)
    throw new PolicyError(
      'POLICY_VERSION_SKIPPED',
      `expected version ${next}, saw version ${version}`,
    )
  if (verified.previous !== (installed?.sha256 ?? null))
    throw new PolicyError(
      'POLICY_PREVIOUS',
      `expected a policy that follows ${installed?.sha256 ?? 'nothing'}, saw one that follows ${verified.previous ?? 'nothing'}`,
    )
  return verified
}

function openSigned(
  { envelope }: SignedPolicy,
  root: TrustRoot,
): { statement: ReturnType<typeof verifyStatement>['statement']; signers: readonly string[] } {
  const { keys, threshold } = root.roles.policy
  try {
    const { statement, signers } = verifyStatement(
      parseEnvelope(Buffer.from(envelope)),
      keys,
      threshold,
      POLICY_V1,
    )
    return { statement, signers: signers.map(({ keyId }) => keyId) }
  } catch (cause) {
    throw new PolicyError(
      'POLICY_SIGNATURES',
      `expected a policy signed by ${threshold} of ${keys.length} policy keys: ${messageOf(cause)}`,
      { cause },
    )
  }
}
