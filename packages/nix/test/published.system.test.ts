// The package as others install it: compiled, packed, and used from a project that knows nothing of the sources.
import { execFileSync, spawnSync } from 'node:child_process'
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join, resolve } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'

const home = resolve(import.meta.dirname, '..')
const workspace = resolve(home, '../..')
const tsc = join(workspace, 'node_modules/.bin/tsc')
const readme = readFileSync(join(home, 'README.md'), 'utf8')
const examples = [...readme.matchAll(/^```ts\n(.*?)^```$/gms)].map(([, code = '']) => code)

let scratch: string
let project: string
let packed: string[]

/** A program, with the search path that has the Node of these tests first. */
const exec = (file: string, args: readonly string[], cwd: string): string =>
  execFileSync(file, args, {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, PATH: `${join(process.execPath, '..')}:${process.env['PATH']}` },
  })

beforeAll(() => {
  scratch = mkdtempSync('/var/tmp/bagcheck-published-')
  const [source, scope] = [join(scratch, 'source'), join(scratch, 'project/node_modules/@bagcheck')]
  project = join(scratch, 'project')
  for (const folder of [source, scope, join(project, 'node_modules/@types')])
    mkdirSync(folder, { recursive: true })
  for (const name of ['package.json', 'README.md']) cpSync(join(home, name), join(source, name))
  exec(tsc, ['-p', home, '--outDir', join(source, 'dist')], workspace)
  exec('npm', ['pack', '--ignore-scripts', '--silent'], source)
  const { version } = JSON.parse(readFileSync(join(home, 'package.json'), 'utf8'))
  const archive = join(source, `bagcheck-nix-${version}.tgz`)
  packed = exec('tar', ['-tzf', archive], source).trim().split('\n')
  exec('tar', ['-xzf', archive, '-C', scope], source)
  exec('mv', ['package', 'nix'], scope)
  symlinkSync(
    join(workspace, 'node_modules/@types/node'),
    join(project, 'node_modules/@types/node'),
  )
  writeFileSync(join(project, 'package.json'), '{ "type": "module" }')
})
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

test('holds what was compiled and no more, and needs no other package', () => {
  expect(packed).toContain('package/README.md')
  expect(packed).toContain('package/dist/index.d.ts')
  expect(packed).toContain('package/dist/verify/store-worker.js')
  expect(
    packed.filter(
      (file) => !/^package\/(dist\/.*\.(js|d\.ts)|package\.json|README\.md)$/.test(file),
    ),
  ).toEqual([])
  const installed = join(project, 'node_modules/@bagcheck/nix/package.json')
  expect(JSON.parse(readFileSync(installed, 'utf8')).dependencies).toBeUndefined()
})

test('has types by which every example of the README compiles', () => {
  for (const [index, code] of examples.entries())
    writeFileSync(join(project, `example-${index}.ts`), code)
  const compilerOptions = {
    strict: true,
    noEmit: true,
    target: 'es2024',
    lib: ['es2024', 'esnext.disposable'],
    module: 'nodenext',
    types: ['node'],
  }
  const include = ['example-*.ts']
  writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, include }))
  const { status, stdout } = spawnSync(process.execPath, [tsc, '-p', project], { encoding: 'utf8' })
  expect({ status, stdout }).toEqual({ status: 0, stdout: '' })
})

test('runs without the sources, its worker threads too', () => {
  // Large enough to be read by threads; the path is not there, which is what a thread has to find out.
  const line = (digit: string): string =>
    `/nix/store/${digit.repeat(32)}-none-1.0 sha256-${Buffer.alloc(32).toString('base64')} ${2 ** 30}\n`
  const lines = JSON.stringify([line('1'), line('2')])
  const code = `import { parseManifest, verifyClosure } from '@bagcheck/nix'
    const entries = ${lines}.flatMap((line) => parseManifest(Buffer.from(line)).entries)
    const { mismatches } = await verifyClosure({ entries }, { now: Date.now, parallelism: 2 })
    console.log(mismatches.map(({ kind }) => kind).join())`
  // From standard input: what Node is told of that program's kind must not reach the threads.
  const found = spawnSync(process.execPath, ['--input-type=module', '-'], {
    input: code,
    cwd: project,
    encoding: 'utf8',
  })
  expect(found).toMatchObject({ status: 0, stdout: 'missing,missing\n', stderr: '' })
})
