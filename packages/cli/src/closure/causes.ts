// Root causes as text: per cause one line for each thing that changed, shortened to what differs.
import type { DerivationChange, RootCauses } from '@bagcheck/nix'
import { printable } from './printable.ts'

const VALUE_CHARACTERS = 100

/** The report for people. */
export function describeRootCauses(found: RootCauses): string[] {
  const { causes, propagated, added, removed, same } = found
  const differing = causes.length + propagated.length
  if (differing + added.length + removed.length === 0)
    return [`the same ${same} derivations on both sides`]
  return [
    `${count(causes.length, 'root cause')}: ${count(differing, 'derivation')} of ${same + differing + added.length} differ, ` +
      `${propagated.length} of them only because of ${causes.length === 1 ? 'it' : 'these'}`,
    ...causes.flatMap(({ name, rebuilt, changes }) => [
      '',
      `${name}  (${count(rebuilt, 'other')} rebuilt)`,
      ...changes.flatMap(describeChange).map((line) => `  ${printable(line)}`),
    ]),
    ...describeLone('only in A', removed),
    ...describeLone('only in B', added),
  ]
}

/** One change, in one line or a few. */
export function describeChange(change: DerivationChange): string[] {
  switch (change.field) {
    case 'name':
    case 'platform':
    case 'builder':
      return [`${change.field}: ${quote(change.from)} → ${quote(change.to)}`]
    case 'args':
      return describeValue('arguments', change.from.join(' '), change.to.join(' '))
    case 'env':
      return describeValue(change.key, change.from, change.to)
    case 'attribute':
      return describeValue(`${change.key} (structured)`, change.from, change.to)
    case 'output':
      return describeValue(`output ${change.key}`, change.from, change.to)
    case 'source':
      return describeValue('source', change.from, change.to)
    case 'input': {
      const { from, to, key } = change
      if (from === null) return [`input: + ${key} (${to?.outputs.join(', ')})`]
      if (to === null) return [`input: - ${key} (${from.outputs.join(', ')})`]
      return [`input ${key}: ${from.outputs.join(', ')} → ${to.outputs.join(', ')}`]
    }
  }
}

function describeValue(what: string, from: string | null, to: string | null): string[] {
  if (from === null) return [`${what}: + ${quote(to ?? '')}`]
  if (to === null) return [`${what}: - ${quote(from)}`]
  const separator = from.includes('\n') || to.includes('\n') ? '\n' : ' '
  const old = from.split(separator)
  const young = to.split(separator)
  if (old.length === 1 && young.length === 1) return [`${what}: ${quote(from)} → ${quote(to)}`]
  const [before, after] = [new Set(old), new Set(young)]
  const gone = old.filter((part) => !after.has(part))
  const come = young.filter((part) => !before.has(part))
  if (gone.length + come.length === 0 || gone.length + come.length > 8)
    return [`${what}: ${firstDifference(from, to)}`]
  return [
    ...gone.map((part) => `${what}: - ${quote(part)}`),
    ...come.map((part) => `${what}: + ${quote(part)}`),
  ]
}

function firstDifference(from: string, to: string): string {
  let same = 0
  while (same < from.length && from[same] === to[same]) same++
  const start = Math.max(0, same - 20)
  return `at character ${same}: ${quote(from.slice(start))} → ${quote(to.slice(start))}`
}

function describeLone(title: string, all: RootCauses['added']): string[] {
  if (all.length === 0) return []
  const names = all.map(({ name }) => name)
  const shown = names.slice(0, 20).join(', ')
  const more = names.length > 20 ? ` and ${names.length - 20} more` : ''
  return ['', `${title}: ${shown}${more}`]
}

function quote(value: string): string {
  const clipped = value.length > VALUE_CHARACTERS ? `${value.slice(0, VALUE_CHARACTERS)}…` : value
  return JSON.stringify(clipped)
}

/** `1 file`, `2 files`. */
export function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`
}
