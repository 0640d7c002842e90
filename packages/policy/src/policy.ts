// The policy: which role gets which token for which closure. This is the compiled form, canonical JSON
// (schema bagcheck.policy/v1); what people write is the same in YAML with defaults left out, see
// policy-source.ts. Everything a role must name has no default: a role without selectors is refused.
//
// Limits: 64 MiB, 10,000 roles, 200,000 roots per role, 64 successors in a chain of at most 4.
import { parseCanonical } from '@bagcheck/attest'
import { type Sha256, type StorePath, STORE_DIR, STRENGTHS, parseStorePath } from '@bagcheck/nix'
import { quote } from './error.ts'
import { DESCRIPTOR_KINDS } from './facts.ts'
import { isInterpreter } from './interpreters.ts'
import { installationName } from './installation-name.ts'
import {
  type Read,
  type Reader,
  type Reading,
  absent,
  either,
  integer,
  list,
  literal,
  matching,
  nullable,
  optional,
  readStrictly,
  record,
  sha256,
  simpleName,
  table,
  time,
  when,
} from './reader.ts'

export const POLICY_SCHEMA = 'bagcheck.policy/v1'
/** @see https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md §2.1 */
export const TRUST_DOMAIN: RegExp = /^[a-z0-9._-]{1,255}$/
export const MAX_POLICY_BYTES: number = 64 * 1024 * 1024
/** Stands in an interpreter's arguments for the path of the script. */
export const SCRIPT = '{script}'
/** Longest chain of successors. */
export const MAX_SUCCESSOR_DEPTH = 4

const MAX_ROLES = 10_000
const MIN_TTL_SECONDS = 5
const MAX_TTL_SECONDS = 3600

// The casts brand a string whose whole grammar was checked.
const digest = sha256 as Reader<Sha256>
const storePath: Reader<StorePath> = when('a store path', (value): value is StorePath => {
  if (typeof value !== 'string') return false
  try {
    parseStorePath(value)
    return true
  } catch {
    return false // what is wrong with it is in the report: expected a store path, saw …
  }
})
const text = (max: number): Reader<string> =>
  when(
    `a text of 1 to ${max} characters`,
    (value): value is string =>
      typeof value === 'string' && value.length > 0 && value.length <= max,
  )
const FILE_PATTERN = /^(?!\.)[0-9A-Za-z+\-._?=*]{1,211}(\/(?!\.{0,2}(\/|$))[^/\0]+)+$/
const filePattern = matching(
  'NAME/FILE: a store path name, in which * stands for anything, and a file in it',
  FILE_PATTERN,
)
const uri = when(
  'an absolute URI without fragment, at most 256 characters',
  (value): value is string =>
    typeof value === 'string' &&
    value.length <= 256 &&
    /^[a-z][a-z0-9+.-]*:[\x21-\x7e]+$/.test(value) &&
    !value.includes('#') &&
    !value.includes('*'),
)

const idMap = list(
  record({
    inside: integer(0, 0xffff_fffe),
    outside: integer(0, 0xffff_fffe),
    count: integer(1, 0xffff_ffff),
  }),
  1,
  128,
)
const glob = (max: number): Reader<string> => text(max)

const ociUnit = record({
  launcher: literal('oci'),
  container: matching(
    'the id of a container, in which * stands for anything',
    /^[A-Za-z0-9_+.*-]{1,256}$/,
  ),
  runtimes: optional(list(literal('runc', 'crun'), 1, 2), () => ['runc', 'crun'] as const),
  annotations: optional(table(text(256), glob(1024), 0, 64), () => new Map<string, string>()),
  store: optional(list(literal('host', 'container'), 1, 2), () => ['host'] as const),
  userNamespace: optional(nullable(record({ uids: idMap, gids: idMap })), () => null),
})

/** Selectors of containers. */
export type OciUnit = Read<typeof ociUnit>

const unit = either<
  | { readonly launcher: 'bagcheck-exec'; readonly name: string }
  | { readonly launcher: 'systemd'; readonly name: string; readonly cgroup: string }
  | OciUnit
>('launcher', {
  oci: ociUnit,
  'bagcheck-exec': record({ launcher: literal('bagcheck-exec'), name: simpleName }),
  systemd: record({
    launcher: literal('systemd'),
    name: matching('a service, such as orders.service', /^[A-Za-z0-9:_.@-]{1,200}\.service$/),
    cgroup: matching('a full cgroup path, such as /system.slice/orders.service', /^(\/[^/\0]+)+$/),
  }),
})

const entry = either<
  | {
      readonly kind: 'native'
      readonly executable: string
      readonly arguments: readonly string[] | null
    }
  | {
      readonly kind: 'interpreter'
      readonly executable: string
      readonly script: string
      readonly arguments: readonly string[]
    }
>('kind', {
  native: record({
    kind: literal('native'),
    executable: filePattern,
    arguments: optional(nullable(list(text(4096), 0, 256)), () => null),
  }),
  interpreter: record({
    kind: literal('interpreter'),
    executable: filePattern,
    script: filePattern,
    arguments: list(text(4096), 1, 256),
  }),
})

const audience = record({
  profile: simpleName,
  ttlSeconds: optional(
    record({
      min: optional(integer(MIN_TTL_SECONDS, MAX_TTL_SECONDS), () => MIN_TTL_SECONDS),
      default: optional(integer(MIN_TTL_SECONDS, MAX_TTL_SECONDS), () => 300),
      max: optional(integer(MIN_TTL_SECONDS, MAX_TTL_SECONDS), () => MAX_TTL_SECONDS),
    }),
    () => ({ min: MIN_TTL_SECONDS, default: 300, max: MAX_TTL_SECONDS }),
  ),
  minTier: integer(0, 3),
  minStrength: literal(...STRENGTHS),
  maxAgeFullSeconds: integer(1, 366 * 86_400),
})

const approvedRoot = record({
  root: storePath,
  closure: digest,
  state: optional(literal('active', 'revoked'), () => 'active' as const),
  notAfter: optional(nullable(time), () => null),
  audiences: optional(nullable(list(uri, 1, 64)), () => null),
})

const flag: Reader<boolean> = optional(literal(true, false), () => false)
const capability = matching('a name like CAP_NET_BIND_SERVICE', /^CAP_[A-Z_]+$/)

const jitAllowance = record({
  runtime: digest,
  maxRegions: integer(1, 100_000),
  maxBytes: integer(1, 2 ** 40),
  /** Of anonymous memory that has one, such as `[anon:v8]`; memory without a name needs none. */
  allowNames: optional(list(text(256), 0, 64), () => []),
  allowMemfdNames: optional(list(text(256), 0, 64), () => []),
})

/** A ring for I/O that holds no files of its own does what system calls do, and Node 24 opens one for each loop. */
const EVERYDAY_DESCRIPTORS: readonly (typeof DESCRIPTOR_KINDS)[number][] = ['io-uring']

const foreignFile = when(
  'the full path of a file, or of a directory with a slash at its end, or NAME/FILE of a store path',
  (value): value is string =>
    typeof value === 'string' &&
    (/^(\/(?!\.{0,2}(\/|$))[^/\0]+)+\/?$/.test(value) || FILE_PATTERN.test(value)),
)

/** Kinds of namespaces that a role may allow its processes to have of their own. */
const NAMESPACE_KINDS = ['user', 'mnt', 'pid', 'net', 'ipc', 'uts', 'cgroup', 'time'] as const

const role = record({
  nodeClasses: list(simpleName, 1, 64),
  /** Agents measure the unit by themselves and the broker logs what it would decide; nothing is issued. */
  observe: absent(literal(true)),
  unit,
  uid: integer(0, 0xffff_fffe),
  entry,
  contract: optional(
    nullable(record({ source: literal('closure'), file: filePattern })),
    () => null,
  ),
  audiences: table(uri, audience, 1, 256),
  signers: list(simpleName, 1, 64),
  build: record({
    sandbox: literal(true, false),
    sandboxFallback: literal(true, false),
    impure: literal(true, false),
  }),
  capabilities: optional(list(capability, 0, 41), () => []),
  /** Null: the same as `capabilities`. */
  boundingSet: optional(nullable(list(capability, 0, 41)), () => null),
  seccomp: flag,
  /** What interpreters may read beside the closure; null: it is told and not judged. */
  foreignFiles: optional(nullable(list(foreignFile, 0, 256)), () => null),
  roots: list(approvedRoot, 1, 200_000),
  successors: optional(list(record({ from: digest, to: digest, expires: time }), 0, 64), () => []),
  allow: optional(
    record({
      jit: optional(list(jitAllowance, 0, 64), () => []),
      hostObjects: optional(list(record({ sha256: digest, reason: text(256) }), 0, 256), () => []),
      descriptors: optional(
        list(literal(...DESCRIPTOR_KINDS), 0, DESCRIPTOR_KINDS.length),
        () => EVERYDAY_DESCRIPTORS,
      ),
      namespaces: optional(list(literal(...NAMESPACE_KINDS), 0, NAMESPACE_KINDS.length), () => []),
    }),
    () => ({
      jit: [],
      hostObjects: [],
      descriptors: EVERYDAY_DESCRIPTORS,
      namespaces: [],
    }),
  ),
})

/** What an audience gets. An X.509-SVID is bound by the key in it; a JWT-SVID is a bearer token by nature. */
const profile = either<
  | { readonly type: 'access_token'; readonly binding: 'dpop' | 'none' }
  | { readonly type: 'jwt_svid'; readonly binding: 'none' }
  | { readonly type: 'x509_svid'; readonly binding: 'certificate' }
>('type', {
  access_token: record({ type: literal('access_token'), binding: literal('dpop', 'none') }),
  jwt_svid: record({
    type: literal('jwt_svid'),
    binding: optional(literal('none'), () => 'none' as const),
  }),
  x509_svid: record({
    type: literal('x509_svid'),
    binding: optional(literal('certificate'), () => 'certificate' as const),
  }),
})

/** A system closure that hosts of a class may run. */
const system = record({
  root: storePath,
  closure: digest,
  state: optional(literal('active', 'revoked'), () => 'active' as const),
  notAfter: optional(nullable(time), () => null),
})

const least = (min: number, max: number): Reader<number | null> =>
  optional(nullable(integer(min, max)), () => null)

/** What hosts of a class must be like; numbers are the least that does. */
const hostDemands = record({
  storeReadOnly: flag,
  approvedSystem: flag,
  noPreloads: flag,
  clockSynchronised: flag,
  lockdown: optional(nullable(literal('integrity', 'confidentiality')), () => null),
  modulesDisabled: flag,
  kexecDisabled: flag,
  noCorePipe: flag,
  noUnprivilegedUserfaultfd: flag,
  ptraceScope: least(1, 3),
  ioUringDisabled: least(1, 2),
  memfdNoexec: least(1, 2),
  unprivilegedBpfDisabled: least(1, 2),
  perfEventParanoid: least(-1, 4),
  randomizeVaSpace: least(1, 2),
  binfmtMisc: optional(nullable(list(text(256), 0, 64)), () => null),
  cmdlines: optional(nullable(list(digest, 1, 256)), () => null),
  modules: optional(nullable(list(digest, 1, 256)), () => null),
})

/** What is known and demanded of the hosts of one node class. */
const hosts = record({
  /** Who may attest the systems. */
  signers: optional(list(simpleName, 0, 64), () => []),
  systems: optional(list(system, 0, 4096), () => []),
  require: optional(nullable(hostDemands), () => null),
})

const policyReader = record({
  schema: literal(POLICY_SCHEMA),
  installation: installationName,
  version: integer(1, 2 ** 31),
  notBefore: optional(nullable(time), () => null),
  expires: time,
  trustDomain: matching('a SPIFFE trust domain', TRUST_DOMAIN),
  signers: table(
    simpleName,
    record({
      keyId: digest,
      spki: matching('base64 of a public key', /^[A-Za-z0-9+/]{120,124}={0,2}$/),
    }),
    1,
    256,
  ),
  profiles: table(simpleName, profile, 1, 256),
  hosts: optional(table(simpleName, hosts, 0, 256), () => new Map()),
  roles: table(simpleName, role, 1, MAX_ROLES),
})

/** A policy that is well formed and makes sense in itself; nothing is said about its signatures. */
export type Policy = Read<typeof policyReader>
export type Role = Read<typeof role>
export type Audience = Read<typeof audience>
export type ApprovedRoot = Read<typeof approvedRoot>
export type Profile = Read<typeof profile>
/** What can be minted. */
export type TokenType = Profile['type']

/** A trust domain as a SPIFFE ID: the audience that X.509-SVIDs stand under, for they have none of their own. */
export function trustDomainId(trustDomain: string): string {
  return `spiffe://${trustDomain}`
}
export type Hosts = Read<typeof hosts>
export type HostDemands = Read<typeof hostDemands>

/** Reads a policy and reports everything that is wrong with it. */
export function readPolicy(value: unknown, reading: Reading): Policy {
  let sound = true
  const watched: Reading = {
    complete: reading.complete,
    report: (path, message) => {
      sound = false
      reading.report(path, message)
    },
  }
  const policy = policyReader(value, null, watched)
  // Only a well-formed policy can be asked whether it makes sense.
  if (sound) checkPolicy(policy, reading)
  return policy
}

/**
 * Parses a compiled policy.
 * @throws {PolicyError} POLICY_FORMAT – with the first thing that is wrong; {AttestError} CANONICAL_JSON, JSON_*
 */
export function parsePolicy(json: string | Uint8Array): Policy {
  const value = parseCanonical(json, { maxBytes: MAX_POLICY_BYTES })
  const reader: Reader<Policy> = (seen, _place, reading) => readPolicy(seen, reading)
  return readStrictly(reader, value, 'POLICY_FORMAT', 'policy')
}

/** What the shape alone cannot say. */
function checkPolicy(policy: Policy, reading: Reading): void {
  const say = (message: string, ...path: (string | number)[]): void => reading.report(path, message)
  if (policy.notBefore !== null && policy.notBefore >= policy.expires)
    say(`expected a time after notBefore, saw ${quote(policy.expires)}`, 'expires')
  for (const [nodeClass, found] of policy.hosts)
    checkHosts(policy, found, (message, ...path) => say(message, 'hosts', nodeClass, ...path))
  const profileOf = new Map<string, string>()
  for (const [name, found] of policy.roles) {
    const at = (...path: (string | number)[]): (string | number)[] => ['roles', name, ...path]
    for (const [index, signer] of found.signers.entries())
      if (!policy.signers.has(signer))
        say(`expected one of the policy's signers, saw ${quote(signer)}`, ...at('signers', index))
    for (const [uriOf, { profile, ttlSeconds }] of found.audiences) {
      if (!policy.profiles.has(profile))
        say(
          `expected one of the policy's profiles, saw ${quote(profile)}`,
          ...at('audiences', uriOf, 'profile'),
        )
      // Relying parties may ignore `typ`, so one audience never sees tokens of two kinds.
      const other = profileOf.get(uriOf)
      if (other !== undefined && other !== profile)
        say(
          `expected profile ${quote(other)}, which this audience has in another role`,
          ...at('audiences', uriOf, 'profile'),
        )
      profileOf.set(uriOf, profile)
      const type = policy.profiles.get(profile)?.type
      const ownId = trustDomainId(policy.trustDomain)
      if (type !== undefined && (type === 'x509_svid') !== (uriOf === ownId))
        say(
          `expected X.509-SVIDs, and nothing else, under the trust domain's ID ${quote(ownId)}, saw type ${quote(type)}`,
          ...at('audiences', uriOf, 'profile'),
        )
      if (!(ttlSeconds.min <= ttlSeconds.default && ttlSeconds.default <= ttlSeconds.max))
        say('expected min ≤ default ≤ max', ...at('audiences', uriOf, 'ttlSeconds'))
    }
    checkUnit(found, (message, ...path) => say(message, ...at(...path)))
    checkEntry(found, (message, ...path) => say(message, ...at('entry', ...path)))
    checkRoots(found, (message, ...path) => say(message, ...at(...path)))
    checkAllowances(found, (message, ...path) => say(message, ...at(...path)))
  }
}

type Say = (message: string, ...path: (string | number)[]) => void

function checkHosts(policy: Policy, { signers, systems, require }: Hosts, say: Say): void {
  for (const [index, signer] of signers.entries())
    if (!policy.signers.has(signer))
      say(`expected one of the policy's signers, saw ${quote(signer)}`, 'signers', index)
  if (systems.length > 0 && signers.length === 0)
    say('expected who may attest the systems', 'signers')
  if (require?.approvedSystem === true && systems.length === 0)
    say('expected the systems that are approved', 'systems')
  const known = new Set<string>()
  for (const [index, { closure }] of systems.entries()) {
    if (known.has(closure)) say('expected each closure once', 'systems', index, 'closure')
    known.add(closure)
  }
}

function checkUnit({ unit: found, contract, allow }: Role, say: Say): void {
  const shared = allow.namespaces.filter((kind) => ['mnt', 'pid', 'user'].includes(kind))
  if (found.launcher === 'oci' && shared.length > 0)
    say(
      `expected no ${shared.join(', ')}: a container has these of its own, and all in it share them`,
      ...['allow', 'namespaces'],
    )
  if (found.launcher === 'oci' && /^\*+$/.test(found.container) && found.annotations.size === 0)
    say('expected an id, or annotations that select', 'unit', 'container')
  if (found.launcher === 'systemd' && found.name.startsWith('user@'))
    say("expected a service of the host: what is below a user manager is its user's choice", 'unit')
  if (found.launcher === 'bagcheck-exec' && contract !== null)
    say('expected none: bagcheck exec starts no unit file and no configuration', 'contract')
}

function checkEntry({ entry: found }: Role, say: Say): void {
  if (found.kind === 'native') {
    if (isInterpreter(found.executable))
      say(
        `expected kind: interpreter with script and arguments, because ${quote(found.executable)} runs scripts`,
        'kind',
      )
    return
  }
  const scripts = found.arguments.filter((argument) => argument === SCRIPT)
  if (scripts.length !== 1)
    say(`expected "${SCRIPT}" exactly once, saw it ${scripts.length} times`, 'arguments')
  for (const [index, argument] of found.arguments.entries())
    if (argument !== SCRIPT && argument.includes(SCRIPT))
      say(
        `expected "${SCRIPT}" as an argument of its own, saw ${quote(argument)}`,
        'arguments',
        index,
      )
}

function checkRoots(found: Role, say: Say): void {
  const known = new Set<string>()
  for (const [index, { closure, audiences }] of found.roots.entries()) {
    if (known.has(closure)) say('expected each closure once', 'roots', index, 'closure')
    known.add(closure)
    for (const [position, name] of (audiences ?? []).entries())
      if (!found.audiences.has(name))
        say(
          `expected one of the role's audiences, saw ${quote(name)}`,
          'roots',
          index,
          'audiences',
          position,
        )
  }
  checkSuccessors(found, known, say)
}

/** Edges join two approved closures, each pair once, in no circle and in no chain that nobody can follow. */
function checkSuccessors({ successors }: Role, known: ReadonlySet<string>, say: Say): void {
  const edges = new Set<string>()
  for (const [index, { from, to }] of successors.entries()) {
    for (const end of ['from', 'to'] as const)
      if (!known.has(end === 'from' ? from : to))
        say(
          "expected a closure among the role's roots: both ends are approved",
          'successors',
          index,
          end,
        )
    if (edges.has(`${from} ${to}`)) say('expected each pair once', 'successors', index)
    edges.add(`${from} ${to}`)
  }
  const next = Map.groupBy(successors, ({ from }) => from)
  const depths = new Map<string, number>()
  // Infinite while a closure is being walked: who meets it again walks in a circle.
  const depthFrom = (closure: string): number => {
    const seen = depths.get(closure)
    if (seen !== undefined) return seen
    depths.set(closure, Number.POSITIVE_INFINITY)
    const below = (next.get(closure as Sha256) ?? []).map(({ to }) => 1 + depthFrom(to))
    const depth = Math.max(0, ...below)
    depths.set(closure, depth)
    return depth
  }
  for (const [index, { from }] of successors.entries()) {
    const depth = depthFrom(from)
    if (depth === Number.POSITIVE_INFINITY)
      say('expected no cycle of successors', 'successors', index)
    else if (depth > MAX_SUCCESSOR_DEPTH)
      say(
        `expected a chain of at most ${MAX_SUCCESSOR_DEPTH} successors, saw ${depth}`,
        'successors',
        index,
      )
  }
}

function checkAllowances({ allow }: Role, say: Say): void {
  const runtimes = new Set<string>()
  for (const [index, { runtime }] of allow.jit.entries()) {
    if (runtimes.has(runtime)) say('expected each runtime once', 'allow', 'jit', index, 'runtime')
    runtimes.add(runtime)
  }
}

/**
 * An expression for the store files that a NAME/FILE pattern means. A `*` stands for anything within the
 * name of the store path, never for a directory.
 */
export function compilePattern(pattern: string): RegExp {
  const [name = '', ...rest] = pattern.split('/')
  const literally = (text: string): string => text.replace(/[.+?^$()[\]{}|\\*]/g, String.raw`\$&`)
  const names = name.split('*').map(literally).join('[^/]*')
  return new RegExp(`^${STORE_DIR}/[0-9a-z]{32}-${names}/${literally(rest.join('/'))}$`)
}
