// What the text of a derivation gives away: secrets, paths of somebody's machine, moments in time.
import { decodeByteString, STRUCTURED_ATTRIBUTES } from '../derivation/derivation.ts'
import type { Derivation } from '../derivation/derivation.ts'
import type { Seen } from './finding.ts'
import { findSecrets, hasPasswordHash, isLikelySecret } from './secrets.ts'
import { findCredentials } from './url.ts'

// "/homeless-shelter" is what builders get for a home; accounts that documentation uses are no leak.
const HOME =
  /(?<![\w./~})$-])\/(?:home|Users)\/(?!(?:user|username|USER|USERNAME|you|me|linuxbrew|Shared|runner)(?![\w-]))[A-Za-z_][\w.-]{0,63}/
const ROOT_HOME = /(?<![\w./~})$-])\/root\/\w[\w./-]{0,100}/ // not "/root/.nix-defexpr"
// As a whole value: scripts mention temporary files that they make when they run.
const TEMPORARY = /^(?:\/private)?(?:\/tmp|\/var\/tmp|\/var\/folders)\/[\w.+-]{1,100}(?:\/|$)/
const DATE_NAME = /(?:date|time|timestamp|epoch|now)$/i
const MOMENT =
  /^(?:1[4-9][0-9]{8}|20[12][0-9]-[01][0-9]-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9].{0,12})$/
const FIXED_DATES: ReadonlySet<string> = new Set([
  'SOURCE_DATE_EPOCH',
  'lastModified',
  'lastModifiedDate',
])
const MAX_DEPTH = 64

/** Everything of that kind in one derivation. */
export function auditText(derivation: Derivation): Seen[] {
  const { builder, args, env } = derivation
  return [
    ...auditValue('builder', '', decodeByteString(builder)),
    ...args.flatMap((arg, index) => auditValue(`args[${index}]`, '', decodeByteString(arg))),
    ...[...env].flatMap(([key, value]) => {
      const name = decodeByteString(key)
      const text = decodeByteString(value)
      return key === STRUCTURED_ATTRIBUTES ? auditJson(text) : auditValue(`env.${name}`, name, text)
    }),
  ]
}

function auditJson(text: string): Seen[] {
  let root: unknown
  try {
    root = JSON.parse(text)
  } catch {
    return auditValue(`env.${STRUCTURED_ATTRIBUTES}`, '', text) // Nix would refuse it
  }
  const seen: Seen[] = []
  const open: {
    readonly value: unknown
    readonly field: string
    readonly name: string
    readonly depth: number
  }[] = [{ value: root, field: STRUCTURED_ATTRIBUTES, name: '', depth: 0 }]
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const { value, field, name, depth } = next
    if (typeof value === 'string') seen.push(...auditValue(field, name, value))
    if (value === null || typeof value !== 'object' || depth === MAX_DEPTH) continue
    for (const [key, inner] of Object.entries(value)) {
      const list = Array.isArray(value)
      open.push({
        value: inner,
        field: list ? `${field}[${key}]` : `${field}.${key}`,
        name: list ? name : key,
        depth: depth + 1,
      })
    }
  }
  return seen
}

/** Secrets by their form. */
export function auditSecrets(field: string, text: string): Seen[] {
  const seen: Seen[] = findSecrets(text).map((what) => ({ kind: 'secret', field, seen: what }))
  if (hasPasswordHash(text)) seen.push({ kind: 'password-hash', field, seen: 'a crypt(3) hash' })
  const credentials = findCredentials(text)
  if (credentials !== undefined) seen.push({ kind: 'url-credentials', field, seen: credentials })
  return seen
}

/** One value; `name` is what its key is called. */
function auditValue(field: string, name: string, text: string): Seen[] {
  const seen = auditSecrets(field, text)
  if (seen.length === 0 && isLikelySecret(name, text))
    seen.push({ kind: 'possible-secret', field, seen: `${text.length} characters` })
  const path = HOME.exec(text)?.[0] ?? ROOT_HOME.exec(text)?.[0] ?? TEMPORARY.exec(text)?.[0]
  if (path !== undefined) seen.push({ kind: 'host-path', field, seen: path })
  if (DATE_NAME.test(name) && MOMENT.test(text) && !FIXED_DATES.has(name))
    seen.push({ kind: 'build-date', field, seen: text })
  return seen
}
