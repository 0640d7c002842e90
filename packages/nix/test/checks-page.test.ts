// docs/nix-checks.md against the lists that it explains.
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { AUDIT_KINDS, AUDIT_SEVERITIES, BUILD_VERDICTS } from '@bagcheck/nix'

const page = readFileSync('docs/nix-checks.md', 'utf8')
const rowOf = (first: string): string =>
  page.split('\n').find((line) => line.startsWith(`| ${first} |`)) ?? ''

test.each(AUDIT_SEVERITIES)(
  'the page has every kind of impurity that is %s, and no other',
  (severity) => {
    const kinds = Object.entries(AUDIT_KINDS).filter(([, [one]]) => one === severity)
    const named = [...rowOf(severity).matchAll(/`([a-z-]+)`/g)].map(([, name]) => name)
    expect(new Set(named)).toEqual(new Set(kinds.map(([kind]) => kind)))
  },
)

test.each(Object.keys(BUILD_VERDICTS))('the page has the verdict %s', (verdict) => {
  expect(rowOf(`\`${verdict}\``)).not.toBe('')
})
