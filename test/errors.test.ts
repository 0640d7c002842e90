// Codes are API, and docs/errors.md explains each. Every exported const array that ends in `_CODES` has
// one section there, named by it, with one heading for each code.
import { globSync, readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { describe, expect, test } from 'vitest'

const PAGE = 'docs/errors.md'

/** Headings of the page by the array that their section is named after; paragraphs by heading. */
function readPage(): Map<string, { code: string; text: string }[]> {
  const [, ...sections] = readFileSync(PAGE, 'utf8').split(/^## /m)
  return new Map(
    sections.map((section) => {
      const [head = '', ...entries] = section.split(/^### /m)
      const name = /^.*\(`(\w+_CODES)`\)\n/.exec(head)?.[1] ?? head.split('\n', 1)[0] ?? ''
      return [
        name,
        entries.map((entry) => {
          const end = entry.indexOf('\n')
          return { code: entry.slice(0, end), text: entry.slice(end).trim() }
        }),
      ]
    }),
  )
}

/** Every exported array of codes, by name. */
async function readCode(): Promise<Map<string, readonly string[]>> {
  const found = new Map<string, readonly string[]>()
  for (const file of globSync('packages/*/src/**/*.ts')) {
    const names = readFileSync(file, 'utf8').matchAll(/^export const (\w+_CODES)\b/gm)
    for (const [, name = ''] of names) {
      const module: unknown = await import(pathToFileURL(resolve(file)).href)
      found.set(name, (module as Record<string, readonly string[]>)[name] ?? [])
    }
  }
  return found
}

const page = readPage()
const code = await readCode()

describe(PAGE, () => {
  test('has one section for each array of codes', () => {
    expect([...page.keys()].toSorted()).toEqual([...code.keys()].toSorted())
  })

  test.each([...code])('explains every code of %s, and no other', (name, codes) => {
    const explained = (page.get(name) ?? []).map((entry) => entry.code)
    const missing = codes.filter((one) => !explained.includes(one))
    const unknown = explained.filter((one) => !codes.includes(one))
    expect(missing, `write a paragraph in ${PAGE} for each of these codes of ${name}`).toEqual([])
    expect(unknown, `${PAGE} explains codes that ${name} does not have; remove them`).toEqual([])
    expect(explained.length, `${PAGE} explains a code of ${name} twice`).toBe(codes.length)
  })

  test('says something about each', () => {
    const empty = [...page.values()].flat().filter(({ text }) => text.length < 15)
    expect(empty.map((entry) => entry.code)).toEqual([])
  })
})

test('each reason to deny is given by a rule, and by a test of the policy', () => {
  const textOf = (glob: string): string =>
    globSync(glob)
      .filter((file) => !file.endsWith('/denial.ts'))
      .map((file) => readFileSync(file, 'utf8'))
      .join('\n')
  const rules = textOf('packages/policy/src/**/*.ts')
  const tests = textOf('packages/policy/test/**/*.ts')
  const codes = code.get('DENIAL_CODES') ?? []
  expect(codes.length).toBeGreaterThan(0)
  expect(codes.filter((one) => !rules.includes(`'${one}'`))).toEqual([])
  expect(codes.filter((one) => !tests.includes(`'${one}'`))).toEqual([])
})
