// The manifests that testdata/closure.txt compares. BAGCHECK_UPDATE=1 writes them anew.
import { hash } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { buildManifest, parseNarHash, parseStorePathBase } from '@bagcheck/nix'
import type { PathInfo, StorePath } from '@bagcheck/nix'

/** A path whose hash follows from its name and `build`. */
function path(name: string, build: number): StorePath {
  const digits = hash('sha256', `${name} ${build}`).replaceAll('e', 'g').slice(0, 32)
  return parseStorePathBase(`${digits}-${name}`)
}

/** `[name, build of the path, content, size, ...indices of references]` */
type Row = readonly [
  name: string,
  build: number,
  content: string,
  narSize: number,
  ...refs: number[],
]

function manifestText(rows: readonly Row[]): string {
  const infos = rows.map(([name, build, content, narSize, ...references]): PathInfo => ({
    path: path(name, build),
    narHash: parseNarHash(`sha256:${hash('sha256', content)}`),
    narSize,
    references: references.map((index) => {
      const [to, version] = rows[index] as Row
      return path(to, version)
    }),
  }))
  return buildManifest(infos.at(-1)?.path as StorePath, infos).text
}

const before: Row[] = [
  ['glibc-2.38-66', 1, 'glibc', 30_000_000, 0],
  ['openssl-3.0.13', 1, 'openssl', 6_000_000, 0],
  ['zlib-1.3', 1, 'zlib', 130_000, 0],
  ['curl-8.6.0', 1, 'curl', 4_000_000, 0, 1, 2],
  ['tzdata-2024a', 1, 'tzdata', 1_500_000],
  ['bash-5.2-p26', 1, 'bash', 1_700_000, 0],
  ['orders-1.0', 1, 'orders', 42_000, 3, 4, 5],
]
const after: Row[] = [
  ['glibc-2.38-66', 1, 'glibc', 30_000_000, 0],
  ['openssl-3.0.14', 1, 'openssl 14', 6_100_000, 0],
  ['zlib-1.3', 2, 'zlib', 130_000, 0],
  ['curl-8.6.0', 2, 'curl again', 4_000_000, 0, 1, 2],
  ['bash-5.2-p26', 1, 'bash', 1_700_000, 0],
  ['jq-1.7.1', 1, 'jq', 700_000, 0],
  ['jq-1.7.1-bin', 1, 'jq-bin', 90_000, 0, 5],
  ['orders-1.1', 1, 'orders 1.1', 45_000, 3, 4, 6],
]
const altered = after.map((row): Row => {
  const [name, build, , ...rest] = row
  return name.startsWith('bash') ? [name, build, 'evil', ...rest] : row
})

describe('the manifests of the transcripts', () => {
  const folder = join(import.meta.dirname, '../testdata/closure')
  test.each([
    ['before', before],
    ['after', after],
    ['altered', altered],
  ] as const)('%s.manifest is what it is made from', (name, rows) => {
    const file = join(folder, `${name}.manifest`)
    if (process.env['BAGCHECK_UPDATE'] === '1') writeFileSync(file, manifestText(rows))
    expect(readFileSync(file, 'utf8')).toBe(manifestText(rows))
  })
})
