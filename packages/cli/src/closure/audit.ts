// The impurity audit as text: by kind, with the reason once.
import { printable } from './printable.ts'
import { AUDIT_KINDS, AUDIT_SEVERITIES, type AuditKind, type ImpurityAudit } from '@bagcheck/nix'

const SHOWN = 10

/** The report for people; `all` shows every finding, also those that are only worth knowing. */
export function describeAudit(audit: ImpurityAudit, all: boolean): string[] {
  const { derivations, fixedOutputs, hosts, counts, findings } = audit
  const named = hosts.slice(0, SHOWN).map(({ host, derivations }) => `${host} (${derivations})`)
  const more = hosts.length > SHOWN ? [`${hosts.length - SHOWN} more`] : []
  const from = named.length === 0 ? '' : `, from ${[...named, ...more].join(', ')}`
  const byKind = Map.groupBy(findings, ({ kind }) => kind)
  const kinds = [...byKind.keys()].filter((kind) => all || AUDIT_KINDS[kind][0] !== 'info')
  return [
    `${derivations} derivations, ${fixedOutputs} of them fetched${printable(from)}`,
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
