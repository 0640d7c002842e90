import { byteOrder } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import { AUDIT_KINDS, AUDIT_SEVERITIES } from './finding.ts'
import type { AuditFinding, Seen } from './finding.ts'
import { findSecrets, hasPasswordHash } from './secrets.ts'
import { redactUrls } from './url.ts'

const SEEN_CHARACTERS = 300

/** The finding of a check in one derivation. */
export function makeFinding(
  derivation: StorePath,
  name: string,
  { kind, field, seen }: Seen,
): AuditFinding {
  const [severity, why] = AUDIT_KINDS[kind]
  return { kind, severity, derivation, name, field, seen: showable(seen), why }
}

/** The gravest first, then by kind, name of the derivation and field; for `Array.sort`. */
export function bySeverity(a: AuditFinding, b: AuditFinding): number {
  const rank = (one: AuditFinding): number => AUDIT_SEVERITIES.indexOf(one.severity)
  return (
    rank(a) - rank(b) ||
    byteOrder(a.kind, b.kind) ||
    byteOrder(a.name, b.name) ||
    byteOrder(a.derivation, b.derivation) ||
    byteOrder(a.field, b.field)
  )
}

/** Whatever a check says it saw, no secret leaves here. */
function showable(seen: string): string {
  if (findSecrets(seen).length > 0 || hasPasswordHash(seen)) return '…'
  const redacted = redactUrls(seen)
  return redacted.length > SEEN_CHARACTERS ? `${redacted.slice(0, SEEN_CHARACTERS)}…` : redacted
}
