// docs/threat-model.md names, for each attack, the tests that stage it. A name that no test has any more
// would be a claim that nothing defends.
import { existsSync, globSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

const PAGE = 'docs/threat-model.md'
const CHAPTERS = 'packages/cli/src/demo/chapters/*.ts'

/** Every test that the page names: `package/file` “title”, “title”. */
function namedTests(): { file: string; title: string }[] {
  const text = readFileSync(PAGE, 'utf8')
  return [...text.matchAll(/`([\w/-]+)` ((?:“[^”]+”(?:, )?)+)/g)].flatMap(([, file, titles]) =>
    [...(titles ?? '').matchAll(/“([^”]+)”/g)].map(([, title]) => ({
      file: file ?? '',
      title: title ?? '',
    })),
  )
}

/** The source of a test file; of the demo's steps for `demo`. */
function sourceOf(file: string): string {
  if (file === 'demo')
    return globSync(CHAPTERS)
      .map((chapter) => readFileSync(chapter, 'utf8'))
      .join('\n')
  const path = `packages/${file.replace('/', '/test/')}`
  const found = [`${path}.test.ts`, `${path}.system.test.ts`].find((name) => existsSync(name))
  return found === undefined ? '' : readFileSync(found, 'utf8')
}

const named = namedTests()

test(`${PAGE} names tests`, () => {
  expect(named.length).toBeGreaterThan(50)
  expect([...readFileSync(PAGE, 'utf8').matchAll(/“/g)]).toHaveLength(named.length)
})

test(`every test that ${PAGE} names exists`, () => {
  const missing = named.filter(({ file, title }) => {
    const source = sourceOf(file)
    return !["'", '"', '`'].some((quote) => source.includes(`${quote}${title}${quote}`))
  })
  expect(missing, 'correct these names in the page').toEqual([])
})
