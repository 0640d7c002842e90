// Impurity audit of a derivation graph: what in it takes from "these inputs give this closure". It sees what
// derivations say. It cannot see what a builder did: whether the sandbox was on, which files it let in, what
// evaluation read; for those there is the attestation of the build.
import type { DerivationGraph } from '../derivation/graph.ts'
import { derivationKind } from '../derivation/derivation.ts'
import { readAttributes } from '../derivation/attributes.ts'
import { byteOrder } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import { auditDerivation } from './derivation.ts'
import type { AuditFinding, AuditSeverity } from './finding.ts'
import { bySeverity, makeFinding } from './make-finding.ts'
import { auditText } from './text.ts'
import { hostOf } from './url.ts'

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
 * @see `AUDIT_KINDS` for what is looked for, and why; `auditSources` for what the sources hold.
 */
export function auditDerivations(graph: DerivationGraph): ImpurityAudit {
  const findings: AuditFinding[] = []
  const hosts = new Map<string, number>()
  let fixedOutputs = 0
  for (const [path, derivation] of graph.derivations) {
    const { name } = derivation
    for (const seen of [...auditDerivation(derivation), ...auditText(derivation)])
      findings.push(makeFinding(path, name, seen))
    if (derivationKind(derivation) !== 'fixed') continue
    fixedOutputs += 1
    const attributes = readAttributes(derivation)
    const urls = [...attributes.strings('url'), ...attributes.strings('urls')]
    for (const host of new Set(urls.map(hostOf)))
      if (host !== undefined) hosts.set(host, (hosts.get(host) ?? 0) + 1)
  }
  return {
    schema: 'bagcheck.impurity-audit/v1',
    roots: graph.roots,
    derivations: graph.derivations.size,
    fixedOutputs,
    hosts: Array.from(hosts, ([host, derivations]) => ({ host, derivations })).toSorted(
      (a, b) => b.derivations - a.derivations || byteOrder(a.host, b.host),
    ),
    counts: countBySeverity(findings),
    findings: findings.toSorted(bySeverity),
  }
}

function countBySeverity(findings: readonly AuditFinding[]): Record<AuditSeverity, number> {
  const counts = { high: 0, medium: 0, low: 0, info: 0 }
  for (const { severity } of findings) counts[severity] += 1
  return counts
}
