// The policy of one role as people write it: what a service on an interpreter may have.
import type { Sha256, StorePath } from '@bagcheck/nix'
import { SERVICE_UID } from './running-service.ts'

/** What differs between the policies of tests. */
export interface TestPolicy {
  readonly installation: string
  readonly version?: number
  /** RFC 3339, UTC. */
  readonly expires: string
  /** Also the name of the unit. */
  readonly role: string
  readonly nodeClass?: string
  readonly executable: string
  readonly script: string
  /** Default: what `runningFacts` states. */
  readonly arguments?: readonly string[]
  /** Profile, a name among {@link PROFILES}, and bounds of lifetime by audience. */
  readonly audiences: Readonly<Record<string, { readonly profile: TestProfile; ttl?: string }>>
  readonly root: StorePath
  readonly closure: Sha256 | string
  readonly state?: 'active' | 'revoked'
  readonly observe?: boolean
}

/** `api`: bound, `plain`: bearer; they are always there. The others are where an audience has them. */
const PROFILES = {
  api: '{ type: access_token, binding: dpop }',
  plain: '{ type: access_token, binding: none }',
  svid: '{ type: x509_svid }',
  jwt: '{ type: jwt_svid }',
} as const
export type TestProfile = keyof typeof PROFILES

const DEFAULT_TTL = '{ min: 5, default: 300, max: 3600 }'

/** YAML; the key of its one signer, `ci`, is read from `keys/ci.pub`. */
export function policyText(policy: TestPolicy): string {
  const { version = 1, nodeClass = 'demo', state = 'active' } = policy
  const { arguments: args = ['--jitless', '{script}'] } = policy
  const audiences = Object.entries(policy.audiences).map(
    ([audience, { profile, ttl = DEFAULT_TTL }]) => `      ${audience}:
        profile: ${profile}
        ttlSeconds: ${ttl}
        minTier: 0
        minStrength: incremental
        maxAgeFullSeconds: 86400`,
  )
  const used = Object.values(policy.audiences).map(({ profile }) => profile)
  const profiles = Object.entries(PROFILES)
    .filter(([name]) => (['api', 'plain', ...used] as string[]).includes(name))
    .map(([name, text]) => `  ${name}: ${text}`)
  return `schema: bagcheck.policy/v1
installation: ${policy.installation}
version: ${version}
expires: ${policy.expires}
trustDomain: ${policy.installation}.bagcheck.test
signers:
  ci: { key: keys/ci.pub }
profiles:
${profiles.join('\n')}
roles:
  ${policy.role}:
    nodeClasses: [${nodeClass}]
${policy.observe === true ? '    observe: true\n' : ''}    unit: { launcher: bagcheck-exec, name: ${policy.role} }
    uid: ${SERVICE_UID}
    entry:
      kind: interpreter
      executable: '${policy.executable}'
      script: '${policy.script}'
      arguments: [${args.map((one) => `'${one}'`).join(', ')}]
    audiences:
${audiences.join('\n')}
    signers: [ci]
    build: { sandbox: true, sandboxFallback: false, impure: false }
    roots:
      - { root: ${policy.root}, closure: ${policy.closure}, state: ${state} }
`
}
