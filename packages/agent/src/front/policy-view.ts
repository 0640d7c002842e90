// What the agent reads in a policy: which closures are worth checking for which unit. It decides nothing;
// a policy that lies here makes the agent check the wrong closures, and the broker deny. Its signatures
// are the broker's and the auditor's business; the agent checks that it hangs on the pinned trust root and
// never goes back, so that a broker cannot show it an older one unseen.
import { createHash } from 'node:crypto'
import type { PolicyResponse } from '@bagcheck/api'
import { parseSha256, parseStorePath, type Sha256, type StorePath } from '@bagcheck/nix'
import { AgentError, quote } from '../error.ts'
import type { WantedUnit } from '../measure/find-units.ts'
import { matchesGlob } from '../measure/glob.ts'

/** A closure that the policy names. */
export interface Candidate {
  readonly root: StorePath
  readonly closureDigest: Sha256
  /** Oldest full pass that some audience of the role accepts, in seconds; null if none says. */
  readonly maxAgeFullSeconds: number | null
  /** Audiences of the role whose `minStrength` is a full pass. */
  readonly fullFor: ReadonlySet<string>
}

/** The closures of one policy version, by unit name. */
export interface PolicyView {
  readonly version: number
  /** SPIFFE trust domain of every subject; undefined before any policy was read. */
  readonly trustDomain: string | undefined
  candidates(unitName: string): readonly Candidate[]
  /** Units that are to be observed, each once. */
  readonly observed: readonly ObservedUnit[]
}

/** A unit that is measured whether it asks or not, and what for. */
export interface ObservedUnit extends WantedUnit {
  readonly audiences: readonly string[]
}

/** Before any policy was read. */
export const NO_POLICY: PolicyView = {
  version: 0,
  trustDomain: undefined,
  candidates: () => [],
  observed: [],
}

/**
 * @param pin sha256 of the payload of version 1
 * @throws {AgentError} TRUST_ROOT_MISMATCH, BROKER_RESPONSE
 */
export function assertTrustRoot(rootChain: readonly string[], pin: string): void {
  const first = payloadDigest(rootChain[0])
  if (first !== pin)
    throw new AgentError(
      'TRUST_ROOT_MISMATCH',
      `expected a trust root that starts at ${pin}, saw ${first}`,
    )
}

/**
 * @param pin sha256 of the payload of version 1 of the trust root
 * @param highest version seen before
 * @throws {AgentError} BROKER_RESPONSE, TRUST_ROOT_MISMATCH, POLICY_ROLLBACK
 */
export function readPolicyView(
  response: PolicyResponse,
  { pin, highest }: { pin: string; highest: number },
): PolicyView {
  assertTrustRoot(response.rootChain, pin)
  if (createHash('sha256').update(response.policy).digest('hex') !== response.sha256)
    throw new AgentError('BROKER_RESPONSE', 'the policy has another digest than its response says')
  const policy = parseObject(response.policy)
  const { version, trustDomain } = policy
  if (!Number.isSafeInteger(version) || version !== response.version) throw malformed('version')
  if (version < highest)
    throw new AgentError(
      'POLICY_ROLLBACK',
      `expected policy version ${highest} or later, saw ${version}`,
    )
  if (typeof trustDomain !== 'string' || !/^[a-z0-9._-]{1,255}$/.test(trustDomain))
    throw malformed('trust domain')
  const byUnit = new Map<string, Candidate[]>()
  // Too many candidates only make the broker deny more.
  const byPattern: [pattern: string, candidates: Candidate[]][] = []
  const observed = new Map<string, ObservedUnit>()
  for (const role of rolesOf(policy['roles'])) {
    const unit = role['unit'] as Record<string, unknown> | null | undefined
    const isContainer = unit?.['launcher'] === 'oci'
    const name = unit?.[isContainer ? 'container' : 'name']
    if (typeof name !== 'string' || !Array.isArray(role['roots'])) throw malformed('role')
    const maxAgeFullSeconds = shortestMaxAge(role['audiences'])
    const fullFor = audiencesOfFull(role['audiences'])
    const list = isContainer ? [] : (byUnit.get(name) ?? [])
    if (isContainer) byPattern.push([name, list])
    else byUnit.set(name, list)
    const launcher = unit?.['launcher']
    if (
      role['observe'] === true &&
      (launcher === 'systemd' || launcher === 'bagcheck-exec' || launcher === 'oci')
    ) {
      const key = `${launcher} ${name}`
      const audiences = [
        ...(observed.get(key)?.audiences ?? []),
        ...Object.keys((role['audiences'] ?? {}) as object),
      ]
      observed.set(key, { launcher, name, audiences })
    }
    for (const entry of role['roots'] as unknown[]) {
      const { root, closure } = (entry ?? {}) as Record<string, unknown>
      if (typeof root !== 'string' || typeof closure !== 'string') throw malformed('root')
      list.push({
        root: parseStorePath(root),
        closureDigest: parseSha256(closure),
        maxAgeFullSeconds,
        fullFor,
      })
    }
  }
  return {
    version,
    trustDomain,
    candidates: (unitName) => [
      ...(byUnit.get(unitName) ?? []),
      ...byPattern.flatMap(([pattern, list]) => (matchesGlob(unitName, pattern) ? list : [])),
    ],
    observed: [...observed.values()],
  }
}

function rolesOf(roles: unknown): Record<string, unknown>[] {
  if (typeof roles !== 'object' || roles === null) throw malformed('roles')
  const list: unknown[] = Array.isArray(roles) ? roles : Object.values(roles)
  if (!list.every((role) => typeof role === 'object' && role !== null)) throw malformed('role')
  return list as Record<string, unknown>[]
}

function shortestMaxAge(audiences: unknown): number | null {
  if (typeof audiences !== 'object' || audiences === null) return null
  const ages = Object.values(audiences)
    .map((audience) => (audience as Record<string, unknown> | null)?.['maxAgeFullSeconds'])
    .filter((age) => typeof age === 'number')
  return ages.length === 0 ? null : Math.min(...ages)
}

function audiencesOfFull(audiences: unknown): ReadonlySet<string> {
  if (typeof audiences !== 'object' || audiences === null) return new Set()
  const demands = Object.entries(audiences as Record<string, Record<string, unknown> | null>)
  return new Set(
    demands.filter(([, audience]) => audience?.['minStrength'] === 'full').map(([name]) => name),
  )
}

/** sha256 of the payload of a DSSE envelope. */
function payloadDigest(envelope: string | undefined): string {
  const payload = parseObject(envelope ?? '')['payload']
  if (typeof payload !== 'string') throw malformed('trust root')
  return createHash('sha256').update(Buffer.from(payload, 'base64')).digest('hex')
}

function parseObject(text: string): Record<string, unknown> {
  try {
    const value = JSON.parse(text) as unknown
    if (typeof value === 'object' && value !== null) return value as Record<string, unknown>
  } catch (cause) {
    throw new AgentError('BROKER_RESPONSE', `expected JSON, saw ${quote(text)}`, { cause })
  }
  throw malformed('object')
}

function malformed(what: string): AgentError {
  return new AgentError('BROKER_RESPONSE', `expected a policy, saw an unexpected ${what}`)
}
