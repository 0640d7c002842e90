import type { StorePath } from '../store-path.ts'

/** How much a finding takes from what a closure proves; the gravest first. */
export const AUDIT_SEVERITIES = ['high', 'medium', 'low', 'info'] as const

/** One of {@link AUDIT_SEVERITIES}. `info` is worth knowing and no fault. */
export type AuditSeverity = (typeof AUDIT_SEVERITIES)[number]

/** What is looked for, how grave it is, and why it matters. */
export const AUDIT_KINDS = {
  'no-chroot': [
    'high',
    'asks to be built outside the sandbox: everything on the builder is an input that nothing records',
  ],
  'impure-output': [
    'high',
    'is built with network access and without a hash: a second build may give anything',
  ],
  secret: [
    'high',
    'holds a secret: derivations and their outputs are readable by every user and are copied to caches',
  ],
  'url-credentials': [
    'high',
    'holds credentials in a URL: derivations are readable by every user and are copied to caches',
  ],
  'weak-hash': [
    'high',
    'trusts whatever has this hash: other content with the same hash can be made',
  ],
  'discarded-references': [
    'high',
    'hides references of its output: what it contains is not in its closure, so neither approved nor verified',
  ],
  'host-dependency': ['high', 'lets files of the builder into the sandbox, which nothing records'],
  'possible-secret': [
    'medium',
    'has a value that is named like a secret: derivations are readable by every user',
  ],
  'password-hash': [
    'medium',
    'holds the hash of a password, which every user can read and try to guess',
  ],
  'host-builder': [
    'medium',
    'is built by a program that is not in the store: another builder may have another one there',
  ],
  'impure-environment': [
    'medium',
    'takes variables from whoever builds it; these may hold credentials, and steer what is fetched',
  ],
  'insecure-url': [
    'medium',
    'is fetched without transport security: the hash alone stands between it and the network',
  ],
  'host-path': [
    'medium',
    'names a path of somebody’s machine: it was evaluated or will run differently elsewhere',
  ],
  'build-date': ['medium', 'holds a moment in time, as an impure evaluation would give it'],
  'recursive-nix': [
    'medium',
    'calls Nix while it is built: what it then uses is not in its inputs',
  ],
  'builtin-builder': [
    'low',
    'is built by Nix itself outside the sandbox, so by whatever that version of Nix does',
  ],
  'system-features': [
    'low',
    'needs a builder with special features, such as virtual machines, whose results tend to vary',
  ],
  'unknown-origin': ['low', 'is fetched, but its derivation does not say from where'],
  'unknown-output': [
    'info',
    'has outputs whose paths are known only after the build, so they cannot be checked before it',
  ],
  'fixed-output': ['info', 'is fetched with network access; its hash pins the content'],
  'embedded-closure': [
    'info',
    'is given the closure of other paths, as images are: these may be inside it without being references',
  ],
  'no-substitutes': ['info', 'is always built here, never taken from a cache'],
  'reference-limits': [
    'info',
    'limits what its outputs may refer to; Nix checks this when it builds',
  ],
} as const satisfies Readonly<Record<string, readonly [AuditSeverity, string]>>

/** What a finding is about. */
export type AuditKind = keyof typeof AUDIT_KINDS

/** One thing that was found in one derivation. */
export interface AuditFinding {
  readonly kind: AuditKind
  readonly severity: AuditSeverity
  readonly derivation: StorePath
  readonly name: string
  /** `builder`, `args[N]`, `outputs.NAME`, `env.NAME` or `__json.NAME`. */
  readonly field: string
  /** What was seen. Secrets are left out. */
  readonly seen: string
  /** Why it matters. */
  readonly why: string
}

/** What a check says; the rest follows from the kind and the derivation. */
export interface Seen {
  readonly kind: AuditKind
  readonly field: string
  readonly seen: string
}
