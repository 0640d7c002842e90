// The policies of the demo, as a person would write them.
import { INSTALLATION } from './stage.ts'

/** A closure as its attestation names it. */
export interface AttestedRoot {
  readonly root: string
  readonly closureDigest: string
}

/** Who runs what, and for whom its tokens are. */
export const UNITS = {
  orders: { uid: 61_001, audience: 'https://orders-api.demo.test' },
  reports: { uid: 61_002, audience: 'https://reports-api.demo.test' },
  pricing: { uid: 61_003, audience: 'https://pricing-api.demo.test' },
} as const

/** Whom the agent's front becomes. */
export const AGENT_UID = 61_000

/** Seconds; so short that a renewal can be watched. */
export const TTL_SECONDS = 5

const day = (now: Date, days: number): string =>
  `${new Date(now.getTime() + days * 86_400_000).toISOString().slice(0, 19)}Z`

function role(
  name: keyof typeof UNITS,
  options: {
    entry: readonly string[]
    profile: string
    roots: readonly AttestedRoot[]
    more?: readonly string[]
  },
): string[] {
  const { uid, audience } = UNITS[name]
  return [
    `  ${name}:`,
    '    nodeClasses: [demo]',
    `    unit: { launcher: bagcheck-exec, name: ${name} }`,
    `    uid: ${uid}`,
    '    entry:',
    '      kind: interpreter',
    ...options.entry.map((line) => `      ${line}`),
    '    audiences:',
    `      ${audience}:`,
    `        profile: ${options.profile}`,
    `        ttlSeconds: { min: ${TTL_SECONDS}, default: ${TTL_SECONDS}, max: 60 }`,
    '        minTier: 0',
    '        minStrength: incremental',
    '        maxAgeFullSeconds: 86400',
    '    signers: [ci]',
    '    build: { sandbox: true, sandboxFallback: false, impure: false }',
    '    roots:',
    ...options.roots.flatMap(({ root, closureDigest }) => [
      `      - { root: ${root}, closure: ${closureDigest}, state: active }`,
    ]),
    ...(options.more ?? []).map((line) => `    ${line}`),
  ]
}

/** What each version of the policy approves. */
export interface PolicyContent {
  readonly version: 1 | 2 | 3
  readonly now: Date
  readonly orders: AttestedRoot
  readonly hotfix: AttestedRoot
  readonly reports: AttestedRoot
  /** sha256 of the runtime that version 3 allows to make code. */
  readonly runtime: string
}

/** Version 1 gates one service; 2 adds the hotfix and two more; 3 allows a JIT. */
export function policyText(content: PolicyContent): string {
  const { version, now, orders, hotfix, reports, runtime } = content
  const node = (...args: string[]): string[] => [
    "executable: 'demo-node-*/bin/node'",
    "script: 'orders-*/lib/orders.mjs'",
    `arguments: [${[...args, '{script}'].map((arg) => `'${arg}'`).join(', ')}]`,
  ]
  const lines = [
    'schema: bagcheck.policy/v1',
    `installation: ${INSTALLATION}`,
    `version: ${version}`,
    `expires: ${day(now, 30)}`,
    'trustDomain: demo.bagcheck.test',
    'signers:',
    '  ci: { key: keys/ci.pub }',
    'profiles:',
    '  api: { type: access_token, binding: dpop }',
    '  plain: { type: access_token, binding: none }',
    'roles:',
    ...role('orders', {
      entry: node('--jitless'),
      profile: 'api',
      roots: version === 1 ? [orders] : [orders, hotfix],
      more:
        version === 1
          ? []
          : [
              'successors:',
              `  - { from: ${orders.closureDigest}, to: ${hotfix.closureDigest}, expires: ${day(now, 7)} }`,
            ],
    }),
  ]
  if (version === 1) return `${lines.join('\n')}\n`
  lines.push(
    ...role('reports', {
      entry: [
        "executable: 'demo-perl-*/bin/perl'",
        "script: 'reports-*/lib/reports.pl'",
        "arguments: ['{script}']",
      ],
      profile: 'plain',
      roots: [reports],
    }),
    ...role('pricing', {
      entry: node(),
      profile: 'api',
      roots: [orders],
      more:
        version === 2
          ? []
          : [
              'allow:',
              '  jit:',
              `    - { runtime: ${runtime}, maxRegions: 64, maxBytes: 1073741824 }`,
            ],
    }),
  )
  return `${lines.join('\n')}\n`
}
