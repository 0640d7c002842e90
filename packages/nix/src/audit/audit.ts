// Impurity audit of a derivation graph: what in it takes from "these inputs give this closure". It sees what
// derivations say. It cannot see what a builder did: whether the sandbox was on, which files it let in, what
// evaluation read; for those there is the attestation of the build.
import type { DerivationGraph } from '../derivation/graph.ts'
import { derivationKind } from '../derivation/derivation.ts'
import { readAttributes } from '../derivation/attributes.ts'
import { byteOrder } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import { auditDerivation } from './derivation.ts'
import { AUDIT_KINDS, AUDIT_SEVERITIES } from './finding.ts'
import type { AuditFinding, AuditSeverity } from './finding.ts'
import { findSecrets, hasPasswordHash } from './secrets.ts'
import { auditText } from './text.ts'
import { hostOf, redactUrls } from './url.ts'

const SEEN_CHARACTERS = 300

/** What an audit found. */
export interface ImpurityAudit {
  readonly schema: 'bagcheck.impurity-audit/v1'
  readonly roots: readonly StorePath[]
  readonly derivations: number
  /** How many are fetched: their builds have network access, and a hash. */
  readonly fixedOutputs: number
  /** From where, with how many derivations name it; the most first. */
  readonly hosts: readonly { readonly host: string; readonly derivations: number }[]
  readonly counts: Readonly<Record<AuditSeverity, number>>
  /** The gravest first, then by kind, name of the derivation and field. */
  readonly findings: readonly AuditFinding[]
}

/**
 * Looks for impurities in every derivation of `graph`. No finding shows a secret.
 *
 * @see {@link AUDIT_KINDS} for what is looked for, and why.
 */
export function auditDerivations(graph: DerivationGraph): ImpurityAudit {
  const findings: AuditFinding[] = []
  const hosts = new Map<string, number>()
  let fixedOutputs = 0
  for (const [path, derivation] of graph.derivations) {
    const { name } = derivation
    for (const { kind, field, seen } of [
      ...auditDerivation(derivation),
      ...auditText(derivation),
    ]) {
      const [severity, why] = AUDIT_KINDS[kind]
      findings.push({ kind, severity, derivation: path, name, field, seen: showable(seen), why })
    }
    if (derivationKind(derivation) !== 'fixed') continue
    fixedOutputs += 1
    const attributes = readAttributes(derivation)
    const urls = [...attributes.strings('url'), ...attributes.strings('urls')]
    for (const host of new Set(urls.map(hostOf)))
      if (host !== undefined) hosts.set(host, (hosts.get(host) ?? 0) + 1)
  }
  const rank = (one: AuditFinding): number => AUDIT_SEVERITIES.indexOf(one.severity)
  return {
    schema: 'bagcheck.impurity-audit/v1',
    roots: graph.roots,
    derivations: graph.derivations.size,
    fixedOutputs,
    hosts: Array.from(hosts, ([host, derivations]) => ({ host, derivations })).toSorted(
      (a, b) => b.derivations - a.derivations || byteOrder(a.host, b.host),
    ),
    counts: countBySeverity(findings),
    findings: findings.toSorted(
      (a, b) =>
        rank(a) - rank(b) ||
        byteOrder(a.kind, b.kind) ||
        byteOrder(a.name, b.name) ||
        byteOrder(a.derivation, b.derivation) ||
        byteOrder(a.field, b.field),
    ),
  }
}

/** Whatever a check says it saw, no secret leaves here. */
function showable(seen: string): string {
  if (findSecrets(seen).length > 0 || hasPasswordHash(seen)) return '…'
  const redacted = redactUrls(seen)
  return redacted.length > SEEN_CHARACTERS ? `${redacted.slice(0, SEEN_CHARACTERS)}…` : redacted
}

function countBySeverity(findings: readonly AuditFinding[]): Record<AuditSeverity, number> {
  const counts = { high: 0, medium: 0, low: 0, info: 0 }
  for (const { severity } of findings) counts[severity] += 1
  return counts
}
