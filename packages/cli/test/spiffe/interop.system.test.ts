// Unmodified SPIFFE clients of others against our Workload API: each is itself what runs in an approved closure,
// and knows nothing but SPIFFE_ENDPOINT_SOCKET. Opt-in: BAGCHECK_INTEROP=1 (npm run interop).
import { join } from 'node:path'
import { nixAvailable } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { buildBag, buildPython } from './bags.ts'
import { goProgram, pythonFolder, rustProgram, spireAgent } from './clients.ts'
import {
  AUDIENCE,
  startInstallation,
  TRUST_DOMAIN,
  type Program,
  type SpiffeInstallation,
  type SpiffeRole,
} from './installation.ts'

const canRun = nixAvailable()
const go = canRun ? goProgram() : undefined
const spire = canRun ? spireAgent() : undefined
const rust = canRun ? rustProgram() : undefined
const python = canRun ? pythonFolder() : undefined
const available = [go, spire, rust, python].some((one) => one !== undefined)
// The reason is printed where there are none.
test.skipIf(!available)('there are SPIFFE clients of others', () => {
  expect(available).toBe(true)
})

type Said = Record<string, unknown>
async function event(program: Program, kind: string, from = 0): Promise<Said> {
  const line = await program.line((text) => parsed(text)?.['event'] === kind, from)
  return JSON.parse(line) as Said
}
function parsed(text: string): Said | undefined {
  try {
    return JSON.parse(text) as Said
  } catch {
    return undefined
  }
}

describe.runIf(available)('against the Workload API', () => {
  let installation: SpiffeInstallation
  const roles: SpiffeRole[] = []
  const unit = (name: string, uid: number, more: Omit<SpiffeRole, 'name' | 'uid'>): void => {
    roles.push({ name, uid, ttl: 10, ...more })
  }
  const role = (name: string): SpiffeRole => roles.find((one) => one.name === name) as SpiffeRole
  const id = (name: string): string => `spiffe://${TRUST_DOMAIN}/role/${name}`
  const start = (name: string, ...args: string[]): Program => installation.exec(role(name), args)

  beforeAll(async () => {
    installation = await startInstallation()
    const { directory } = installation
    const native = async (name: string, program: string): Promise<string> =>
      buildBag(directory, 'static', { name, program })
    if (go !== undefined) {
      const root = await native('go-program', go)
      const entry = ['kind: native', "executable: 'go-program/bin/go-program'"]
      unit('go-one', 61_201, { entry, root })
      unit('go-two', 61_202, { entry, root })
    }
    if (spire !== undefined)
      unit('spire', 61_203, {
        entry: ['kind: native', "executable: 'spire-agent/bin/spire-agent'"],
        root: await native('spire-agent', spire),
      })
    if (rust !== undefined)
      unit('rust', 61_204, {
        entry: ['kind: native', "executable: 'rust-program/bin/rust-program'"],
        root: await native('rust-program', rust),
      })
    if (python !== undefined)
      unit('python', 61_205, {
        entry: [
          'kind: interpreter',
          "executable: 'python-program-*/bin/python3.11'",
          "script: 'python-program-*/lib/client.py'",
          `arguments: ['{script}', '${AUDIENCE}']`,
        ],
        root: await buildPython(directory, python),
        // What the C library reads of the host for its character sets.
        allow: ["foreignFiles: ['/usr/lib/x86_64-linux-gnu/gconv/', '/usr/lib/locale/']"],
      })
    await installation.open(roles)
  }, 1_500_000)
  afterAll(() => installation[Symbol.asyncDispose]())

  describe.runIf(go !== undefined)('go-spiffe', () => {
    const program = (name: string, ...args: string[]): Program =>
      start(name, join(role(name).root, 'bin/go-program'), ...args)

    test('watches, fetches and validates', async () => {
      const watch = program('go-one', 'watch', AUDIENCE)
      expect(await event(watch, 'svid')).toMatchObject({
        ...{ id: id('go-one'), domains: [TRUST_DOMAIN] },
      })
      expect(await event(watch, 'one')).toMatchObject({ id: id('go-one') })
      expect(await event(watch, 'bundles')).toMatchObject({ count: 1 })
      expect((await event(watch, 'jwt-bundles'))['keys']).toBeGreaterThan(0)
      expect(await event(watch, 'jwt')).toMatchObject({ id: id('go-one'), valid: id('go-one') })
      expect(await event(watch, 'several')).toMatchObject({ code: 'InvalidArgument' })
      expect(await event(watch, 'other')).toMatchObject({ code: 'InvalidArgument' })
      const renewed = await event(watch, 'svid', watch.lines.length)
      expect(renewed['id']).toBe(id('go-one'))
    })

    test('makes mTLS between two services with an X509Source', async () => {
      const server = program('go-one', 'serve')
      const { port } = await event(server, 'serving')
      const client = program('go-two', 'call', `127.0.0.1:${String(port)}`)
      expect(await event(client, 'server')).toMatchObject({ id: id('go-one'), text: 'hello' })
      expect(await event(server, 'caller')).toMatchObject({ id: id('go-two') })
    })

    test('verifies a JWT-SVID against the bundles of a JWTSource', async () => {
      expect(await event(program('go-two', 'jwt', AUDIENCE), 'jwt')).toMatchObject({
        id: id('go-two'),
      })
    })

    test('is told PermissionDenied when it may have none', async () => {
      const { root } = role('go-one')
      const command = [join(root, 'bin/go-program'), 'watch', AUDIENCE]
      const watch = installation.exec({ name: 'go-one', uid: 61_299 }, command)
      expect(await event(watch, 'failed')).toMatchObject({
        error: expect.stringContaining('PermissionDenied'),
      })
    })
  })

  describe.runIf(spire !== undefined)('spire-agent', () => {
    const api = async (...args: string[]): Promise<{ code: number | null; text: string }> => {
      const socket = ['-socketPath', installation.spiffeSocket]
      const command = [join(role('spire').root, 'bin/spire-agent'), 'api', ...args, ...socket]
      const run = installation.exec(role('spire'), command)
      const code = await run.ended
      return { code, text: run.lines.join('\n') }
    }

    test('api fetch x509', async () => {
      const { code, text } = await api('fetch', 'x509')
      expect([code, text]).toEqual([0, expect.stringContaining(id('spire'))])
    })

    test('api fetch jwt, api validate jwt', async () => {
      const { code, text } = await api('fetch', 'jwt', '-audience', AUDIENCE)
      expect([code, text]).toEqual([0, expect.stringContaining(id('spire'))])
      const token = /eyJ\S+/.exec(text)?.[0] ?? ''
      const validate = (audience: string) =>
        api('validate', 'jwt', '-audience', audience, '-svid', token)
      const valid = await validate(AUDIENCE)
      expect([valid.code, valid.text]).toEqual([0, expect.stringContaining(id('spire'))])
      expect((await validate('other')).code).not.toBe(0)
    })

    test('api watch', async () => {
      const command = [join(role('spire').root, 'bin/spire-agent'), 'api', 'watch']
      const socket = ['-socketPath', installation.spiffeSocket]
      await using watch = installation.exec(role('spire'), [...command, ...socket])
      await watch.line((line) => line.includes(id('spire')))
      await watch.line((line) => line.includes(id('spire')), watch.lines.length)
    })
  })

  describe.runIf(rust !== undefined)('the spiffe crate', () => {
    test('fetches, validates, and keeps its sources fresh', async () => {
      const { root } = role('rust')
      const program = start('rust', join(root, 'bin/rust-program'), AUDIENCE)
      expect(await event(program, 'svid')).toMatchObject({ id: id('rust') })
      expect(await event(program, 'jwt')).toMatchObject({ id: id('rust'), valid: id('rust') })
      expect(await event(program, 'jwt-source')).toMatchObject({ id: id('rust') })
      expect(await event(program, 'source')).toMatchObject({ id: id('rust') })
      await event(program, 'source', program.lines.length)
    })
  })

  describe.runIf(python !== undefined)('py-spiffe', () => {
    test('fetches, validates, and hears of renewals', async () => {
      const { root } = role('python')
      const program = start(
        ...['python', join(root, 'bin/python3.11'), join(root, 'lib/client.py')],
        AUDIENCE,
      )
      expect(await event(program, 'svid')).toMatchObject({ id: id('python') })
      expect(await event(program, 'bundles')).toMatchObject({ x509: 1, jwt: 1 })
      expect(await event(program, 'jwt')).toMatchObject({ id: id('python'), valid: id('python') })
      expect(await event(program, 'jwt-source')).toMatchObject({ id: id('python') })
      expect(await event(program, 'source')).toMatchObject({ id: id('python') })
      const first = await event(program, 'context')
      const next = await event(program, 'context', program.lines.length)
      expect(next['serial']).not.toBe(first['serial'])
    })
  })
})
