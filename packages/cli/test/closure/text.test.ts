import { describe, expect, test } from 'vitest'
import { buildManifest, diffClosures, parseNarHash, parseStorePathBase } from '@bagcheck/nix'
import type { ClosureManifest } from '@bagcheck/nix'
import { describeChange } from '../../src/closure/causes.ts'
import { diffLines } from '../../src/closure/diff-text.ts'
import { printable } from '../../src/closure/printable.ts'
import { formatBytes, formatBytesDelta } from '../../src/closure/size.ts'

describe('a size for people', () => {
  test.each([
    [0, '0 B', '±0 B'],
    [1, '1 B', '+1 B'],
    [1023, '1023 B', '+1023 B'],
    [1024, '1.0 KiB', '+1.0 KiB'],
    [-1536, '-1.5 KiB', '-1.5 KiB'],
    [99.96 * 1024, '100 KiB', '+100 KiB'],
    [1024 ** 2 - 1, '1.0 MiB', '+1.0 MiB'],
    [34 * 1024 ** 3, '34.0 GiB', '+34.0 GiB'],
    [Number.MAX_SAFE_INTEGER, '8.0 PiB', '+8.0 PiB'],
  ])('of %d bytes is %s', (bytes, size, delta) => {
    expect([formatBytes(bytes), formatBytesDelta(bytes)]).toEqual([size, delta])
  })
})

test('names lose what moves the cursor, hides text or turns it round', () => {
  expect(printable('a b\u00e9\u{1f600}')).toBe('a b\u00e9\u{1f600}')
  expect(printable('\u001b[2J\n\u009b\u202e\u2028\udcff\u200b')).toBe(
    '\\u{1b}[2J\\u{a}\\u{9b}\\u{202e}\\u{2028}\\u{dcff}\\u{200b}',
  )
})

/** A closure of `count` packages, each built `build` times. */
function closure(count: number, build: string): ClosureManifest {
  const paths = Array.from({ length: count }, (_, n) =>
    parseStorePathBase(`${build.repeat(28)}${String(n).padStart(4, '0')}-package${n}x-1.0`),
  )
  const root = parseStorePathBase(`${'z'.repeat(32)}-root`)
  const narHash = parseNarHash(`sha256:${build === 'a' ? '0'.repeat(64) : '1'.repeat(64)}`)
  const infos = paths.map((path, n) => ({ path, narHash, narSize: n, references: [] }))
  return buildManifest(root, [...infos, { path: root, narHash, narSize: 1, references: paths }])
}

describe('the text of a diff', () => {
  const diff = diffClosures(closure(50, 'a'), closure(50, 'b'))

  test('lists twenty of the packages that were only rebuilt, and says how many there are', () => {
    const lines = diffLines(diff, { color: false, all: false })
    expect(lines.filter((line) => line.startsWith('content '))).toHaveLength(20)
    expect(lines.at(-1)).toBe('… and 30 more with other content (--all lists them)')
    const all = diffLines(diff, { color: false, all: true })
    expect(all.filter((line) => line.startsWith('content '))).toHaveLength(50)
  })

  test('has a line for each package, however many there are', () => {
    const packages = diff.packages.slice(0, 1)
    const many = { ...diff, packages: Array.from({ length: 150_000 }, () => packages).flat() }
    expect(diffLines(many, { color: false, all: false }).length).toBeGreaterThan(20)
    expect(diffLines(many, { color: false, all: true }).length).toBeGreaterThan(150_000)
  })

  test('has colours only where they are asked for', () => {
    expect(diffLines(diff, { color: false, all: true }).join('')).not.toContain('\u001b')
    expect(diffLines(diff, { color: true, all: false }).join('')).toContain('\u001b[31m')
  })
})

test('a change of a long list is shown by its words, in time that goes with its length', () => {
  const words = Array.from({ length: 100_000 }, (_, index) => `word${index}`)
  const change = { field: 'env', key: 'list', from: words.join(' ') } as const
  const to = words.with(-1, 'other').join(' ')
  expect(describeChange({ ...change, to })).toEqual(['list: - "word99999"', 'list: + "other"'])
})
