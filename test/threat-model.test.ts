// docs/threat-model.md names, for each attack, the tests that stage it. A name that no test has any more
// would be a claim that nothing defends; so would the name of a test that is never run. Titles are
// therefore taken from the syntax of the test files, where a comment or a skipped test has none.
import { existsSync, readFileSync } from 'node:fs'
import { parseAst } from 'rolldown/parseAst'
import { describe, expect, test } from 'vitest'
import { STEPS } from '../packages/cli/src/demo/story.ts'

const PAGE = 'docs/threat-model.md'

/** Every test that the page names: `package/file` “title”, “title”. */
function namedTests(text = readFileSync(PAGE, 'utf8')): { file: string; title: string }[] {
  return [...text.matchAll(/`([\w/-]+)` ((?:“[^”]+”(?:, )?)+)/g)].flatMap(([, file, titles]) =>
    [...(titles ?? '').matchAll(/“([^”]+)”/g)].map(([, title]) => ({
      file: file ?? '',
      title: title ?? '',
    })),
  )
}

/** A node of the syntax tree, of whatever type. */
interface Syntax {
  readonly type: string
  readonly [member: string]: unknown
}

const isSyntax = (value: unknown): value is Syntax =>
  typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string'

/** `test.each(rows)` → test, each. */
function calleeNames(callee: unknown): string[] {
  if (!isSyntax(callee)) return []
  if (callee.type === 'Identifier') return [String(callee['name'])]
  if (callee.type === 'CallExpression') return calleeNames(callee['callee'])
  if (callee.type === 'MemberExpression')
    return [...calleeNames(callee['object']), ...calleeNames(callee['property'])]
  return []
}

/** Strings of a test file that may name tests: titles and tables, not what a test does. */
function collectTitles(node: unknown, titles: Set<string>): void {
  if (Array.isArray(node)) for (const one of node) collectTitles(one, titles)
  if (!isSyntax(node)) return
  if (node.type === 'Literal' && typeof node['value'] === 'string') titles.add(node['value'])
  if (node.type === 'TemplateElement')
    titles.add((node['value'] as { cooked?: string }).cooked ?? '')
  const names = node.type === 'CallExpression' ? calleeNames(node['callee']) : []
  if (names.includes('skip') || names.includes('todo')) return
  const isTest = names[0] === 'test'
  for (const [member, value] of Object.entries(node)) {
    const isBody = (one: unknown): boolean => isSyntax(one) && one.type.includes('Function')
    const doing = isTest && member === 'arguments' && Array.isArray(value)
    collectTitles(doing ? value.filter((one) => !isBody(one)) : value, titles)
  }
}

function titlesIn(source: string): Set<string> {
  const titles = new Set<string>()
  collectTitles(parseAst(source, { lang: 'ts' }), titles)
  return titles
}

/** The titles of a test file; the demo's steps for `demo`. */
function titlesOf(file: string): ReadonlySet<string> {
  if (file === 'demo') return new Set(STEPS)
  const found = pathOf(file)
  return found === undefined ? new Set() : titlesIn(readFileSync(found, 'utf8'))
}

/** Where the test file of that name is. */
function pathOf(file: string): string | undefined {
  const path = file.startsWith('test/') ? file : `packages/${file.replace('/', '/test/')}`
  return [`${path}.test.ts`, `${path}.system.test.ts`, `${path}.host.test.ts`].find((name) =>
    existsSync(name),
  )
}

const named = namedTests()

test(`${PAGE} names tests`, () => {
  expect(named.length).toBeGreaterThan(50)
  expect([...readFileSync(PAGE, 'utf8').matchAll(/“/g)]).toHaveLength(named.length)
})

test(`every test that ${PAGE} names exists and is run`, () => {
  const titles = new Map([...new Set(named.map(({ file }) => file))].map((f) => [f, titlesOf(f)]))
  const missing = named.filter(({ file, title }) => titles.get(file)?.has(title) !== true)
  expect(missing, 'correct these names in the page').toEqual([])
})

describe('an attack on a running bag', () => {
  const [, section = ''] = readFileSync(PAGE, 'utf8').split('### A running bag, attack by attack\n')
  const rows = section
    .split('\n### ')[0]!
    .split('\n')
    .filter((line) => line.startsWith('| '))
    .slice(2) // the head and the rule below it
    .map((line) => line.slice(2, -2).split(' | '))
  const documented = readFileSync('docs/errors.md', 'utf8')

  test('is one of many, each with a code, a test and something like it that passes', () => {
    expect(rows.length).toBeGreaterThan(25)
    for (const row of rows) expect(row).toHaveLength(4)
  })

  test.each(rows)('%s', (_attack, codes = '', staged = '', passes = '') => {
    const sources = namedTests(staged).map(({ file }) => readFileSync(pathOf(file)!, 'utf8'))
    expect(sources).not.toEqual([])
    expect(namedTests(passes)).not.toEqual([])
    expect(codes).toMatch(/^`[A-Z_]+`(, `[A-Z_]+`)*$/)
    for (const code of codes.match(/[A-Z_]+/g) ?? []) {
      expect(documented).toContain(`### ${code}\n`)
      // Not as a word in passing: the tests compare with it.
      expect(sources.some((source) => source.includes(`'${code}'`))).toBe(true)
    }
  })
})

describe('a title', () => {
  test.each([
    ['of a test counts', `test('x', () => {})`, true],
    ['of a group counts', `describe.runIf(real)('x', () => {})`, true],
    ['in a table counts', `test.each([['x', 1]])('%s', () => {})`, true],
    [
      'in a table with a name counts',
      `const rows = [['x', 1]]; test.each(rows)('%s', () => {})`,
      true,
    ],
    ['in a group counts', `describe('y', () => { test('x', () => {}) })`, true],
    ['in a comment does not count', `// test('x')`, false],
    ['of a skipped test does not count', `test.skip('x', () => {})`, false],
    ['of a test that is still to be written does not count', `test.todo('x')`, false],
    [
      'in a skipped group does not count',
      `describe.skip('y', () => { test('x', () => {}) })`,
      false,
    ],
    ['in what a test does does not count', `test('y', () => { expect('x').toBe('x') })`, false],
  ])('%s', (_claim, source, counts) => {
    expect(titlesIn(source).has('x')).toBe(counts)
  })
})
