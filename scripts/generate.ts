// Regenerates committed files that are derived from code, so that a change of the API or of a dependency
// is a line in review; with --check it only compares, names the file that differs and exits 1.
//
//   docs/openapi.json              from the route table of @bagcheck/api
//   packages/{agent,broker,cli}/deps.txt   every npm package of an executable, from package-lock.json
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { openApiDocument } from '@bagcheck/api'

const EXECUTABLES = ['agent', 'broker', 'cli']

interface Locked {
  readonly version?: string
  readonly link?: boolean
  readonly resolved?: string
  readonly dependencies?: Readonly<Record<string, string>>
  readonly optionalDependencies?: Readonly<Record<string, string>>
}
type Lock = Readonly<Record<string, Locked>>

function openApi(): string {
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
  return `${JSON.stringify(openApiDocument(version), null, 2)}\n`
}

function dependencies(name: string): string {
  const lock = (JSON.parse(readFileSync('package-lock.json', 'utf8')) as { packages: Lock })
    .packages
  const found = new Map<string, boolean>()
  visit(lock, `packages/${name}`, false, found)
  const lines = [...found]
    .filter(([path]) => path.startsWith('node_modules/'))
    .map(([path, optional]) => {
      const label = path.slice(path.lastIndexOf('node_modules/') + 'node_modules/'.length)
      return `${label} ${lock[path]?.version}${optional ? ' optional' : ''}`
    })
  const unique = [...new Set(lines)].toSorted()
  const head = `# npm packages of @bagcheck/${name}, direct and transitive. Written by: npm run generate`
  return `${[head, ...unique].join('\n')}\n`
}

/** Walks the lockfile the way Node resolves; an optional package counts as such only if nothing needs it. */
function visit(lock: Lock, path: string, optional: boolean, found: Map<string, boolean>): void {
  const before = found.get(path)
  if (before === false || (before === true && optional)) return
  found.set(path, optional)
  const { dependencies: needed = {}, optionalDependencies = {} } = lock[path] ?? {}
  const names = new Set([...Object.keys(needed), ...Object.keys(optionalDependencies)])
  for (const name of names) {
    const target = resolve(lock, path, name)
    if (target !== undefined) visit(lock, target, optional || name in optionalDependencies, found)
  }
}

function resolve(lock: Lock, from: string, name: string): string | undefined {
  for (let at = from; ; at = at.slice(0, Math.max(0, at.lastIndexOf('/')))) {
    const candidate = `${at === '' ? '' : `${at}/`}node_modules/${name}`
    const entry = lock[candidate]
    if (entry !== undefined) return entry.link ? entry.resolved : candidate
    if (at === '') return undefined
  }
}

const files = new Map([
  ['docs/openapi.json', openApi],
  ...EXECUTABLES.map(
    (name) => [`packages/${name}/deps.txt`, () => dependencies(name)] as [string, () => string],
  ),
])

const check = process.argv.includes('--check')
let stale = 0
for (const [file, produce] of files) {
  const text = produce()
  if (!check) {
    mkdirSync(dirname(file), { recursive: true })
    writeFileSync(file, text)
    continue
  }
  let seen: string | undefined
  try {
    seen = readFileSync(file, 'utf8')
  } catch {
    // Missing is stale as well.
  }
  if (seen === text) continue
  stale++
  console.error(`${file} is not what the code says; run: npm run generate`)
}
process.exit(stale === 0 ? 0 : 1)
