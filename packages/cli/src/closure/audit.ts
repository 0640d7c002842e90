// The impurity audit as text: by kind, with the reason once.
import {
  AUDIT_KINDS,
  AUDIT_SEVERITIES,
  type AuditFinding,
  type AuditKind,
  type ImpurityAudit,
  type SourceAudit,
} from '@bagcheck/nix'
import { count } from './causes.ts'
import { printable } from './printable.ts'

const SHOWN = 10

/** An audit with what its sources hold; as JSON it has a member `sources` more. */
export interface AuditReport extends ImpurityAudit {
  readonly sources?: Omit<SourceAudit, 'findings'>
}

/** `audit` with what was found in the sources. */
export function addSources(audit: ImpurityAudit, sources: SourceAudit): AuditReport {
  const { findings, ...read } = sources
  const counts = { ...audit.counts }
  for (const { severity } of findings) counts[severity] += 1
  const rank = (one: AuditFinding): number => AUDIT_SEVERITIES.indexOf(one.severity)
  const all = [...audit.findings, ...findings].toSorted((a, b) => rank(a) - rank(b))
  return { ...audit, counts, sources: read, findings: all }
}

/** The report for people; `all` shows every finding, also those that are only worth knowing. */
export function describeAudit(audit: AuditReport, all: boolean): string[] {
  const { derivations, fixedOutputs, hosts, counts, findings, sources } = audit
  const named = hosts.slice(0, SHOWN).map(({ host, derivations }) => `${host} (${derivations})`)
  const more = hosts.length > SHOWN ? [`${hosts.length - SHOWN} more`] : []
  const from = named.length === 0 ? '' : `, from ${[...named, ...more].join(', ')}`
  const byKind = Map.groupBy(findings, ({ kind }) => kind)
  const kinds = [...byKind.keys()].filter((kind) => all || AUDIT_KINDS[kind][0] !== 'info')
  return [
    `${count(derivations, 'derivation')}, ${fixedOutputs} of them fetched${printable(from)}`,
    ...(sources
      ? [
          `${count(sources.sources, 'source')} with ${count(sources.files, 'file')}` +
            (sources.unread.length > 0
              ? `, ${sources.unread.length} of them not in the store`
              : ''),
        ]
      : []),
    AUDIT_SEVERITIES.map((severity) => `${counts[severity]} ${severity}`).join(', ') +
      (all || counts.info === 0 ? '' : ' (--all shows these too)'),
    ...kinds.flatMap((kind) => describeKind(kind, byKind.get(kind) ?? [], all)),
  ]
}

function describeKind(kind: AuditKind, found: ImpurityAudit['findings'], all: boolean): string[] {
  const [severity, why] = AUDIT_KINDS[kind]
  const shown = all ? found : found.slice(0, SHOWN)
  return [
    '',
    `${severity.toUpperCase()}  ${kind}: ${why}`,
    ...shown.map(({ name, field, seen }) => `  ${name}  ${printable(`${field}: ${seen}`)}`),
    ...(shown.length < found.length ? [`  and ${found.length - shown.length} more`] : []),
  ]
}
