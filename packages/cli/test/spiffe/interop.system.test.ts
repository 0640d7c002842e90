// Unmodified SPIFFE clients of others against our Workload API: each is itself what runs in an approved closure,
// and knows nothing but SPIFFE_ENDPOINT_SOCKET. Opt-in: BAGCHECK_INTEROP=1 (npm run interop).
import { readFileSync, realpathSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { sha256Hex } from '@bagcheck/nix'
import { nixAvailable } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { buildBag, buildJava, buildPython } from './bags.ts'
import { goProgram, javaFolder, pythonFolder, rustProgram, spireAgent } from './clients.ts'
import {
  AUDIENCE,
  startInstallation,
  TRUST_DOMAIN,
  type Program,
  type SpiffeInstallation,
  type SpiffeRole,
} from './installation.ts'

const canRun = nixAvailable()
const go = canRun ? await goProgram() : undefined
const spire = canRun ? await spireAgent() : undefined
const rust = canRun ? await rustProgram() : undefined
const python = canRun ? await pythonFolder() : undefined
const java = canRun ? await javaFolder() : undefined
const available = [go, spire, rust, python, java].some((one) => one !== undefined)
// The reason is printed where there are none.
test.skipIf(!available)('there are SPIFFE clients of others', () => {
  expect(available).toBe(true)
})

type Said = Record<string, unknown>
async function event(program: Program, kind: string, from = 0, more: Said = {}): Promise<Said> {
  const wanted = Object.entries({ event: kind, ...more })
  const fits = (said: Said | undefined): boolean =>
    wanted.every(([name, value]) => said?.[name] === value)
  return JSON.parse(await program.line((text) => fits(parsed(text)), from)) as Said
}
function parsed(text: string): Said | undefined {
  try {
    return JSON.parse(text) as Said
  } catch {
    return undefined
  }
}

/** Alters a file of a bag for as long as `body` runs: of the same length and inode, as an attacker with root would. */
async function whileAltered(file: string, body: () => Promise<void>): Promise<void> {
  const before = readFileSync(file)
  writeFileSync(file, '{"note":"other"}', { flag: 'r+' })
  try {
    await body()
  } finally {
    writeFileSync(file, before, { flag: 'r+' })
  }
}

/** What most sources do at a denial: hand out what they have, also when it has expired, and ask again and again. */
async function expectKept(source: Program, note: string): Promise<void> {
  await event(source, 'held', 0, { expired: false })
  await whileAltered(note, async () => {
    const expired = await event(source, 'held', source.lines.length, { expired: true })
    const later = await event(source, 'held', source.lines.length)
    expect(later).toEqual(expired)
  })
  await event(source, 'held', source.lines.length, { expired: false })
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
      })
    if (java !== undefined) {
      const root = await buildJava(directory, java)
      const program = sha256Hex(readFileSync(realpathSync(join(root, 'bin/java'))))
      const entry = [
        'kind: interpreter',
        "executable: 'runtime-java-*/bin/java'",
        "script: 'java-program/lib/client.jar'",
        `arguments: ['-jar', '{script}', '${AUDIENCE}']`,
      ]
      const allow = [`jit: [{ runtime: ${program}, maxRegions: 4096, maxBytes: ${2 ** 30} }]`]
      unit('java-one', 61_206, { entry, root, allow })
      unit('java-two', 61_207, { entry, root, allow })
    }
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

    test('keeps its last SVID when it is denied the next, and asks again', async () => {
      const { root } = role('go-one')
      await using source = program('go-one', 'hold')
      await expectKept(source, join(root, 'share/note.json'))
      expect(await event(source, 'error')).toMatchObject({ code: 'PermissionDenied' })
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

    test('api watch says that it is denied, and asks again', async () => {
      const { root } = role('spire')
      const command = [join(root, 'bin/spire-agent'), 'api', 'watch']
      const socket = ['-socketPath', installation.spiffeSocket]
      await using watch = installation.exec(role('spire'), [...command, ...socket])
      await watch.line((line) => line.includes(id('spire')))
      await whileAltered(join(root, 'share/note.json'), async () => {
        const complaints = (): string => watch.complaints.join('\n')
        await expect.poll(complaints, { timeout: 60_000 }).toContain('PermissionDenied')
      })
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

    test('is told PermissionDenied when it may have none', async () => {
      const command = [join(role('rust').root, 'bin/rust-program'), AUDIENCE]
      const program = installation.exec({ name: 'rust', uid: 61_299 }, command)
      expect(await event(program, 'failed')).toMatchObject({
        error: expect.stringContaining('permission denied'),
      })
    })

    test('withdraws its SVID when it is denied the next, and asks again', async () => {
      const { root } = role('rust')
      await using source = start('rust', join(root, 'bin/rust-program'), AUDIENCE)
      await event(source, 'held')
      await whileAltered(join(root, 'share/note.json'), async () => {
        await event(source, 'withdrawn', source.lines.length)
        expect(await event(source, 'none', source.lines.length)).toMatchObject({
          error: expect.stringContaining('denied'),
        })
      })
      await event(source, 'held', source.lines.length)
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

    test('keeps its last SVID when it is denied the next, says nothing, and asks again', async () => {
      const { root } = role('python')
      const command = [join(root, 'bin/python3.11'), join(root, 'lib/client.py'), AUDIENCE]
      await using source = start('python', ...command)
      await expectKept(source, join(root, 'lib/note.json'))
      expect(source.lines.filter((line) => line.includes('"error"'))).toEqual([])
    })

    test('is told PermissionDenied when it may have none', async () => {
      const { root } = role('python')
      const command = [join(root, 'bin/python3.11'), join(root, 'lib/client.py'), AUDIENCE]
      const program = installation.exec({ name: 'python', uid: 61_299 }, command)
      expect(await event(program, 'failed')).toMatchObject({
        error: expect.stringContaining('PERMISSION_DENIED'),
      })
    })
  })

  describe.runIf(java !== undefined)('java-spiffe', () => {
    const command = (): string[] => {
      const { root } = role('java-one')
      return [join(root, 'bin/java'), '-jar', join(root, 'lib/client.jar'), AUDIENCE]
    }
    const run = (name: string, environment: Record<string, string> = {}): Program =>
      installation.exec(role(name), command(), environment)

    test('fetches, validates, and hears of renewals', async () => {
      await using program = run('java-one')
      const me = id('java-one')
      expect(await event(program, 'svid')).toMatchObject({ id: me })
      expect(await event(program, 'bundles')).toMatchObject({ x509: 1, jwt: 1 })
      expect(await event(program, 'jwt')).toMatchObject({ id: me, valid: me })
      expect(await event(program, 'several')).toMatchObject({ code: 'INVALID_ARGUMENT' })
      expect(await event(program, 'other')).toMatchObject({ code: 'INVALID_ARGUMENT' })
      expect(await event(program, 'jwt-source')).toMatchObject({ id: me })
      const held = await event(program, 'held')
      expect(held).toMatchObject({ id: me, expired: false })
      expect(held['authorities']).toBeGreaterThan(0)
      const first = await event(program, 'context')
      const next = await event(program, 'context', program.lines.length)
      expect([next['id'], next['serial'] === first['serial']]).toEqual([me, false])
      await event(program, 'held', program.lines.length, { serial: next['serial'] })
    })

    test('makes mTLS between two services with an X509Source, and refuses others', async () => {
      await using server = run('java-one', { ACCEPT: id('java-two') })
      const { port } = await event(server, 'serving')
      const PEER = `127.0.0.1:${String(port)}`
      await using client = run('java-two', { ACCEPT: id('java-one'), PEER })
      expect(await event(client, 'server')).toMatchObject({ id: id('java-one'), text: 'hello' })
      expect(await event(server, 'caller')).toMatchObject({ id: id('java-two') })
      await using wary = run('java-two', { ACCEPT: id('other'), PEER })
      await event(wary, 'unreached')
      await using stranger = run('java-one', { ACCEPT: id('java-one'), PEER })
      await event(stranger, 'unreached')
      const refusal = `${id('java-one')} in X.509 certificate is not accepted`
      await server.line((line) => line.includes('"refused"') && line.includes(refusal))
    })

    test('is told PermissionDenied when it may have none', async () => {
      await using program = installation.exec({ name: 'java-one', uid: 61_299 }, command())
      expect(await event(program, 'failed')).toMatchObject({ code: 'PERMISSION_DENIED' })
    })

    test('keeps its last SVID when it is denied the next, says nothing, and asks again', async () => {
      await using source = run('java-one')
      await expectKept(source, join(role('java-one').root, 'share/note.json'))
      expect(source.lines.filter((line) => line.includes('"error"'))).toEqual([])
    })
  })
})
