// The list of parsers against what the package exports, and against docs/nix-parsers.md: a new one is tested like the
// others, or says where.
import { existsSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import * as nix from '@bagcheck/nix'
import { ARCHIVES } from './archives.ts'
import { DERIVATIONS } from './derivations.ts'
import { DOCUMENTS } from './documents.ts'
import { LINES } from './lines.ts'
import { WORDS } from './words.ts'

const PARSERS = [...WORDS, ...LINES, ...DERIVATIONS, ...DOCUMENTS, ...ARCHIVES]

/** What reads something that is no text: a connection, a file of SQLite, directories. Where it is tested. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  connectDaemon: 'daemon.test.ts',
  decompressNar: 'nar/decompress.test.ts',
  openBinaryCache: 'cache/source.test.ts',
  openLedger: 'ledger.test.ts',
  openNixDatabase: 'database.test.ts',
  readAttributes: 'audit/audit.test.ts',
  readBootspec: 'nixos/host.test.ts',
  readClosure: 'database.test.ts',
  readNixosHost: 'nixos/host.test.ts',
}

test('the list has every parser that the package exports', () => {
  const exported = Object.entries(nix).filter(([, one]) => typeof one === 'function')
  const parsers = exported
    .map(([name]) => name)
    .filter((name) => /^(parse|read|list|decode|decompress|open|connect)[A-Z]/.test(name))
  const tested = new Set([...PARSERS.map(({ name }) => name), ...Object.keys(ELSEWHERE)])
  expect(parsers.filter((name) => !tested.has(name))).toEqual([])
  expect(Object.keys(ELSEWHERE).filter((name) => !parsers.includes(name))).toEqual([])
  for (const file of Object.values(ELSEWHERE))
    expect(existsSync(new URL(`../${file}`, import.meta.url)), file).toBe(true)
})

test('docs/nix-parsers.md has each parser with its shapes and limits, and no other', () => {
  const rows = new Map<string, { forms: string[]; limits: string[] }>()
  for (const { name, form, limits = [] } of PARSERS) {
    const row = rows.get(name) ?? { forms: [], limits: [] }
    if (form !== undefined) row.forms.push(form)
    row.limits.push(...limits.map(({ what }) => what))
    rows.set(name, row)
  }
  const expected = [...rows]
    .filter(([name]) => name in nix)
    .map(
      ([name, { forms, limits }]) =>
        `| \`${name}\` | ${forms.join(', ') || '–'} | ${limits.join(', ') || '–'} |`,
    )
  const page = readFileSync('docs/nix-parsers.md', 'utf8').split('\n')
  expect(page.filter((line) => line.startsWith('| `'))).toEqual(expected)
})
