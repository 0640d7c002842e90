// What `npm run build` makes, started as an operator starts it: without the sources' export condition.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { services } from '../bench/closures.ts'
import { furnish } from '../bench/furnish.ts'
import { openHttp } from '../bench/http.ts'
import { createInstallation } from '../bench/installation.ts'
import { enrolNode } from '../bench/node.ts'
import { startPacked } from '../bench/packed.ts'

const workspace = resolve(import.meta.dirname, '..')
const issuer = 'https://broker.packed.test'
const EXECUTABLES = ['bagcheck', 'bagcheck-broker', 'bagcheck-agent', 'bagcheck-measurer']
let directory: string
let dist: string

const packed = (name: string): string => join(dist, `${name}.mjs`)
const run = (...args: string[]) => spawnSync(process.execPath, args, { encoding: 'utf8' })

beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'bagcheck-packed-'))
  dist = join(directory, 'dist')
  const args = ['-C', '@bagcheck/source', join(workspace, 'scripts/build.ts'), dist]
  const { status, stderr } = run(...args)
  expect(stderr).toBe('')
  expect(status).toBe(0)
})

afterAll(() => rmSync(directory, { recursive: true, force: true }))

test.each(EXECUTABLES)('%s --help says its usage', (name) => {
  const { status, stdout, stderr } = run(packed(name), '--help')
  expect(stderr).toBe('')
  expect(stdout).toMatch(new RegExp(`usage:\\s+${name} `, 'i'))
  expect(status).toBe(0)
})

test.each(EXECUTABLES)(
  '%s starts by its name alone, also through a link from elsewhere',
  (name) => {
    const link = join(directory, name)
    symlinkSync(join(dist, name), link)
    const PATH = `${dirname(process.execPath)}:/usr/bin:/bin`
    const { status, stdout } = spawnSync(link, ['--help'], { encoding: 'utf8', env: { PATH } })
    expect(stdout).toMatch(/usage:/i)
    expect(status).toBe(0)
  },
)

test.each(EXECUTABLES)('%s --version says it', (name) => {
  const { version } = JSON.parse(readFileSync(join(workspace, 'package.json'), 'utf8'))
  expect(run(packed(name), '--version')).toMatchObject({
    status: 0,
    stdout: `${name} ${version}\n`,
  })
})

test('an older Node is told which one is needed, whatever it can parse', () => {
  const starter = readFileSync(packed('bagcheck-broker'), 'utf8')
  // As Node 20 runs it: what it is differs, and everything newer is in the file that it does not reach.
  const old = join(dist, 'old.mjs')
  writeFileSync(
    old,
    starter.replace('process.versions.node', JSON.stringify('20.19.2')).replace('#!', '//'),
  )
  const { status, stderr } = run(old)
  expect(stderr).toMatch(/^bagcheck-broker: Node 24\.15 or later is needed; this is v/)
  expect(status).toBe(3)
  expect(starter).not.toMatch(/\b(const|let|await|using)\b|=>|\?\?|\?\./)
})

test('the native part of the agent comes with it', () => {
  const load = `await import(${JSON.stringify(join(dist, 'node_modules/koffi/index.js'))})`
  expect(run('--input-type=module', '-e', load)).toMatchObject({ status: 0, stderr: '' })
})

test('every file that a packed file names with new URL is packed beside it', () => {
  const named = readdirSync(dist)
    .filter((name) => name.endsWith('.mjs'))
    .flatMap((name) => [
      ...readFileSync(join(dist, name), 'utf8').matchAll(
        /new URL\(["'](\.[^"']*\.mjs)["'], import\.meta\.url\)/g,
      ),
    ])
    .map(([, path = '']) => path)
  expect(named).toContain('./bagcheck-broker.worker.mjs')
  expect(named).toContain('./bagcheck-agent.measure-worker.mjs')
  expect(readdirSync(dist)).toEqual(expect.arrayContaining(named.map((path) => path.slice(2))))
})

test('the packed broker gets ready and issues a token with its decision in the log', async () => {
  const installation = createInstallation(join(directory, 'installation'), services(1))
  const store = { sqlite: 'bagcheck.sqlite' }
  const config = installation.brokerConfig('broker', { port: 0, issuer, store })
  await using broker = await startPacked([
    process.execPath,
    packed('bagcheck-broker'),
    ...['--config', config],
  ])
  using client = openHttp({ url: broker.ready['listen'] ?? '' })
  const [service] = installation.services
  if (service === undefined) throw new TypeError('expected a service')
  await furnish(installation, [client], { roots: 10, roles: 1 })
  const node = await enrolNode(installation, client, issuer)
  // Policy, attestation and enrolment are entries 0 to 2.
  expect(await node.issue(service, client)).toBe(3)
})
