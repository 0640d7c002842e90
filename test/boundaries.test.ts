// Who may import whom (packages are trust boundaries). The resolver refuses deep imports by itself,
// because every package exports `.` only; this compares the declared dependencies with the one table.
import { globSync, readFileSync, readdirSync } from 'node:fs'
import { describe, expect, test } from 'vitest'

const allowed: Readonly<Record<string, { workspace: string[]; outside: string[] }>> = {
  nix: { workspace: [], outside: [] },
  log: { workspace: [], outside: [] },
  attest: { workspace: ['nix'], outside: [] },
  policy: { workspace: ['nix', 'attest'], outside: ['yaml'] },
  api: { workspace: ['nix'], outside: ['zod'] },
  broker: {
    workspace: ['nix', 'log', 'attest', 'policy', 'api'],
    outside: ['hono', '@hono/node-server', 'kysely', 'pg', 'pino', 'zod'],
  },
  agent: { workspace: ['nix'], outside: ['koffi'] },
  cli: {
    workspace: ['nix', 'log', 'attest', 'policy', 'api'],
    outside: ['koffi', 'oauth4webapi', 'xz-decompress'],
  },
  testkit: { workspace: ['nix', 'attest', 'api'], outside: [] },
}

describe('package boundaries', () => {
  test('the table has a row for each package, and no other', () => {
    expect(Object.keys(allowed).toSorted()).toEqual(readdirSync('packages').toSorted())
  })

  // Exactly: a row that allows more than is used would let that in unseen.
  test.each(Object.entries(allowed))('%s depends on what the table says', (name, row) => {
    const manifest = JSON.parse(readFileSync(`packages/${name}/package.json`, 'utf8'))
    const names = Object.keys(manifest.dependencies ?? {})
    const workspace = names.filter((n) => n.startsWith('@bagcheck/')).map((n) => n.slice(10))
    const outside = names.filter((n) => !n.startsWith('@bagcheck/'))
    expect(workspace.toSorted()).toEqual(row.workspace.toSorted())
    expect(outside.toSorted()).toEqual(row.outside.toSorted())
    expect(Object.keys(manifest.exports)).toEqual(['.'])
  })

  test('only tests import the testkit', () => {
    for (const name of readdirSync('packages')) {
      const manifest = JSON.parse(readFileSync(`packages/${name}/package.json`, 'utf8'))
      expect(Object.keys(manifest.dependencies ?? {})).not.toContain('@bagcheck/testkit')
    }
  })
})

test('the namespace of our URIs stands in one file', () => {
  const files = globSync(['packages/*/src/**/*.ts', 'bench/**/*.ts', 'scripts/**/*.ts'])
  const naming = files.filter((file) => readFileSync(file, 'utf8').includes('//bagcheck.dev'))
  expect(naming).toEqual(['packages/attest/src/uris.ts'])
})
