// The difference of two closures for people: a table, one line for each package, what matters most on top.
import { storePathBase } from '@bagcheck/nix'
import type { ClosureDiff, PackageChange, PackageChangeKind, PathPair } from '@bagcheck/nix'
import { printable } from './printable.ts'
import { formatBytes, formatBytesDelta } from './size.ts'

/** How many packages of the kinds that come in hundreds are listed, if not all. */
const LISTED = 20
const MANY: ReadonlySet<PackageChangeKind> = new Set(['content', 'identical'])

const RED = 31
const GREEN = 32
const YELLOW = 33
const DIM = 2
const COLORS: Readonly<Record<PackageChangeKind, number>> = {
  altered: RED,
  added: GREEN,
  removed: RED,
  version: YELLOW,
  paths: YELLOW,
  content: YELLOW,
  identical: DIM,
}

/** The lines of a diff. `all` lists every package that was only rebuilt, and every path. */
export function diffLines(
  diff: ClosureDiff,
  { color, all }: { readonly color: boolean; readonly all: boolean },
): string[] {
  const { before, after, packages } = diff
  const lines = [
    `- ${before.root}  ${before.closureDigest.slice(0, 16)}…`,
    `+ ${after.root}  ${after.closureDigest.slice(0, 16)}…`,
    `${plural(before.paths, 'path')} → ${after.paths}` +
      ` (${diff.pathsAdded} added, ${diff.pathsRemoved} removed, ${diff.pathsAltered} altered), ` +
      `${formatBytes(before.narBytes)} → ${formatBytes(after.narBytes)}` +
      ` (${formatBytesDelta(diff.narBytesDelta)})`,
  ]
  if (packages.length === 0) return [...lines, 'The closures are the same.']
  const groups = Map.groupBy(packages, ({ change }) => change)
  const shown = [...groups].flatMap(([change, group]) =>
    all || !MANY.has(change) ? group : largest(group),
  )
  const rows = shown.map((entry) => ({
    entry,
    cells: [
      word(entry),
      printable(entry.pname),
      printable(versions(entry)),
      formatBytesDelta(entry.narBytesDelta),
    ],
  }))
  // Not by arguments of `Math.max`: a closure may have more packages than a call takes.
  const widths = [0, 1, 2, 3].map((n) =>
    rows.reduce((width, { cells }) => Math.max(width, cells[n]?.length ?? 0), 0),
  )
  lines.push('')
  for (const { entry, cells } of rows) {
    const padded = cells.map((cell, n) => {
      const width = Math.min(widths[n] ?? 0, 48)
      return n === 3 ? cell.padStart(width) : cell.padEnd(width)
    })
    const line = `${padded.join('  ')}  ${remark(entry)}`.trimEnd()
    lines.push(color ? `\u001b[${COLORS[entry.change]}m${line}\u001b[0m` : line)
    if (all || entry.change === 'altered') lines.push(...paths(entry))
  }
  for (const [change, group] of groups) {
    const hidden = group.length - shown.filter((entry) => entry.change === change).length
    if (hidden > 0) lines.push(`… and ${hidden} more with ${explain(change)} (--all lists them)`)
  }
  return lines
}

/** Those whose size changed most. */
function largest(group: readonly PackageChange[]): PackageChange[] {
  const by = (entry: PackageChange): number => Math.abs(entry.narBytesDelta)
  return group.toSorted((a, b) => by(b) - by(a)).slice(0, LISTED)
}

function word({ change, direction }: PackageChange): string {
  return change === 'version' ? (direction ?? 'versions') : change
}

function versions({ change, versionsBefore, versionsAfter }: PackageChange): string {
  const list = (all: readonly string[]): string =>
    all.map((version) => (version === '' ? '-' : version)).join(', ')
  const stay = versionsBefore.join('\n') === versionsAfter.join('\n')
  if (stay || change === 'added') return list(versionsAfter)
  if (change === 'removed') return list(versionsBefore)
  return `${list(versionsBefore)} → ${list(versionsAfter)}`
}

function remark(entry: PackageChange): string {
  const { change, replaced, added, removed } = entry
  if (change === 'altered') return 'the same store path, another content'
  const parts = [
    ...(change === 'paths' ? [`${signed(added)}${signed(removed, '-')}`] : []),
    ...(replaced.length > 0 ? [rebuilt(entry)] : []),
  ]
  return parts.join(', ')
}

function signed(paths: PackageChange['added'], sign = '+'): string {
  return paths.map(({ output }) => `${sign}${output} `).join('')
}

function rebuilt({ replaced }: PackageChange): string {
  const same = replaced.filter((pair) => pair.sameContent).length
  if (same === replaced.length) return `${plural(same, 'path')} rebuilt, bit by bit the same`
  return `${plural(replaced.length - same, 'path')} rebuilt with other content`
}

function explain(change: PackageChangeKind): string {
  return change === 'identical' ? 'the same content at another path' : 'other content'
}

function paths({ removed, added, replaced, altered }: PackageChange): string[] {
  return [
    ...altered.flatMap((pair) => [
      `    ! ${storePathBase(pair.before.path)}`,
      `      ${pair.before.narHash} → ${pair.after.narHash}`,
      ...references(pair),
    ]),
    ...removed.map(({ path }) => `    - ${storePathBase(path)}`),
    ...added.map(({ path }) => `    + ${storePathBase(path)}`),
    ...replaced.flatMap((pair) => [
      `    - ${storePathBase(pair.before.path)}`,
      `    + ${storePathBase(pair.after.path)}`,
      ...references(pair),
    ]),
  ]
}

function references({ referencesRemoved, referencesAdded }: PathPair): string[] {
  const names = [
    ...referencesRemoved.map((name) => `-${name}`),
    ...referencesAdded.map((name) => `+${name}`),
  ]
  return names.length === 0 ? [] : [`      refers to ${names.join(' ')}`]
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}
