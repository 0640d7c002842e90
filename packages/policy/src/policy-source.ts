// Policies as people write them: YAML 1.2, one document, no anchors or tags, the compiled form with
// defaults left out and signers named by key files. Compiling is deterministic: same text and same key
// files, same bytes. Every mistake is reported with file, line and column.
import { canonicalize, parseVerifyingKey } from '@bagcheck/attest'
import { LineCounter, isAlias, isNode, parseDocument, visit, type Document } from 'yaml'
import { PolicyError, messageOf } from './error.ts'
import { MAX_POLICY_BYTES, type Policy, parsePolicy, readPolicy } from './policy.ts'
import { formatPath } from './reader.ts'

/** One mistake. `line` and `column` count from 1. */
export interface SourceProblem {
  readonly file: string
  readonly line: number
  readonly column: number
  readonly message: string
}

/** Thrown with every mistake of a policy source. */
export class PolicySourceError extends PolicyError {
  readonly problems: readonly SourceProblem[]

  constructor(problems: readonly SourceProblem[]) {
    const lines = problems.map(
      ({ file, line, column, message }) => `${file}:${line}:${column}: ${message}`,
    )
    super('POLICY_SOURCE', lines.join('\n'))
    this.problems = problems
  }
}

export interface CompiledPolicy {
  readonly policy: Policy
  /** Canonical JSON: what is signed. */
  readonly json: string
  /** What is allowed but hardly meant. */
  readonly warnings: readonly SourceProblem[]
}

/**
 * Compiles a policy.
 * @param file its name, for messages
 * @param readFile reads a key file that the policy names
 * @throws {PolicySourceError} POLICY_SOURCE
 */
export function compilePolicy(
  text: string,
  { file, readFile }: { file: string; readFile: (name: string) => string },
): CompiledPolicy {
  if (Buffer.byteLength(text) > MAX_POLICY_BYTES)
    throw new PolicySourceError([
      { file, line: 1, column: 1, message: `expected at most ${MAX_POLICY_BYTES} bytes` },
    ])
  const lines = new LineCounter()
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true, version: '1.2' })
  const at = (offset: number): { line: number; column: number } => {
    const { line, col } = lines.linePos(offset)
    return { line: Math.max(1, line), column: Math.max(1, col) }
  }
  const problems: SourceProblem[] = document.errors.map(({ pos, message }) => ({
    file,
    ...at(pos[0]),
    message: message.split('\n')[0]?.replace(/ at line \d+, column \d+:?$/, '') ?? 'not YAML',
  }))
  // One way to write a thing: what stands in a review is what is meant. YAML 1.1 reads 010 as 8.
  if (document.directives?.yaml.explicit === true)
    problems.push({ file, line: 1, column: 1, message: 'expected no %YAML directive' })
  visit(document, (_key, node) => {
    if (!isNode(node)) return
    const found = isAlias(node) || node.anchor ? 'anchors or aliases' : node.tag ? 'tags' : null
    if (found !== null)
      problems.push({ file, ...at(node.range?.[0] ?? 0), message: `expected no ${found}` })
  })
  if (problems.length > 0) throw new PolicySourceError(problems)

  const value: unknown = document.toJS()
  const note = (list: SourceProblem[]) => (path: readonly (string | number)[], message: string) => {
    list.push({ file, ...at(offsetOf(document, path)), message: `${formatPath(path)}: ${message}` })
  }
  const report = note(problems)
  const unreadable = new Set<string>()
  const resolved = resolveSigners(value, readFile, (name, message) => {
    unreadable.add(name)
    report(['signers', name, 'key'], message)
  })
  const policy = readPolicy(resolveLifetimes(resolved), {
    complete: false,
    // Of a signer whose key file could not be read everything else is wrong too.
    report: (path, message) => {
      if (path[0] !== 'signers' || !unreadable.has(String(path[1]))) report(path, message)
    },
  })
  if (problems.length > 0) throw new PolicySourceError(problems)
  const json = canonicalize(plain(policy))
  const warnings: SourceProblem[] = []
  warnAbout(policy, note(warnings))
  return { policy: parsePolicy(json), json, warnings }
}

type Note = (path: readonly (string | number)[], message: string) => void

/** Puts key id and bytes where the source names a PEM file. */
function resolveSigners(
  value: unknown,
  readFile: (name: string) => string,
  report: (signer: string, message: string) => void,
): unknown {
  const signers = member(value, 'signers')
  if (typeof signers !== 'object' || signers === null || Array.isArray(signers)) return value
  const resolved = Object.entries(signers).map(([name, signer]) => {
    const key = member(signer, 'key')
    if (typeof key !== 'string' || Object.keys(signer as object).length !== 1) return [name, signer]
    try {
      const { keyId, spki } = parseVerifyingKey(readFile(key))
      return [name, { keyId, spki: Buffer.from(spki).toString('base64') }]
    } catch (error) {
      report(name, `expected a PEM file with a P-256 public key: ${messageOf(error)}`)
      return [name, signer]
    }
  })
  return { ...(value as object), signers: Object.fromEntries(resolved) }
}

/** Lifetime of an X.509-SVID where the source names none: for most clients nothing ends one but its end. */
const X509_TTL_SECONDS = 600

/** Puts the default lifetime of X.509-SVIDs, which differs from that of tokens, where the source names none. */
function resolveLifetimes(value: unknown): unknown {
  const profiles = member(value, 'profiles')
  const inAudience = (audience: unknown): unknown => {
    const type = member(member(profiles, String(member(audience, 'profile'))), 'type')
    const ttlSeconds = member(audience, 'ttlSeconds') ?? {}
    const ownDefault = member(ttlSeconds, 'default') !== undefined
    if (type !== 'x509_svid' || typeof ttlSeconds !== 'object' || ownDefault) return audience
    return { ...(audience as object), ttlSeconds: { ...ttlSeconds, default: X509_TTL_SECONDS } }
  }
  const inRole = (role: unknown): unknown =>
    eachMember(role, (name, one) =>
      name === 'audiences' ? eachMember(one, (_, a) => inAudience(a)) : one,
    )
  return eachMember(value, (name, one) =>
    name === 'roles' ? eachMember(one, (_, r) => inRole(r)) : one,
  )
}

/** An object with other values under the same names; what is no object stays what it is. */
function eachMember(value: unknown, change: (name: string, value: unknown) => unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  return Object.fromEntries(Object.entries(value).map(([name, one]) => [name, change(name, one)]))
}

function member(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null
    ? (value as Record<string, unknown>)[name]
    : undefined
}

/** Where the value of a path begins in the text; if it is missing, where that of its nearest parent does. */
function offsetOf(document: Document, path: readonly (string | number)[]): number {
  for (let length = path.length; length > 0; length -= 1) {
    const node = document.getIn(path.slice(0, length), true)
    if (isNode(node) && node.range) return node.range[0]
  }
  return document.contents?.range?.[0] ?? 0
}

/** Maps become objects, so that the policy can be written as JSON. */
function plain(value: unknown): unknown {
  if (value instanceof Map)
    return Object.fromEntries([...value].map(([key, entry]) => [key, plain(entry)]))
  if (Array.isArray(value)) return value.map(plain)
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([key, entry]) => [key, plain(entry)]))
}

function warnAbout(policy: Policy, warn: Note): void {
  const units = new Map<string, string>()
  for (const [name, role] of policy.roles) {
    for (const audience of role.audiences.keys()) {
      const wanted = JSON.stringify([role.unit, audience])
      const other = units.get(wanted)
      if (other !== undefined)
        warn(
          ['roles', name, 'unit'],
          `role ${other} has the same unit and audience ${audience}: all requests are ambiguous`,
        )
      units.set(wanted, name)
    }
    if (role.uid === 0)
      warn(
        ['roles', name, 'uid'],
        'root can be anybody on its host; give the service a user of its own',
      )
    if (!role.build.sandbox || role.build.sandboxFallback || role.build.impure)
      warn(['roles', name, 'build'], 'accepts builds that were not sandboxed and pure')
    for (const [audience, { profile }] of role.audiences)
      if (policy.profiles.get(profile)?.binding === 'none')
        warn(['roles', name, 'audiences', audience], 'bearer tokens: whoever holds one can use it')
  }
}
