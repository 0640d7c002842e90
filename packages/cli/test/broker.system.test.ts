// The commands that talk to a broker, against a real one (SQLite, no Nix): from the trust root to the log.
import { spawn, type ChildProcess } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { findFreePort } from '../src/demo/stage.ts'
import { runCli } from '../src/run.ts'
import { TABLE } from '../src/table.ts'

const packages = join(import.meta.dirname, '../..')
const source = readFileSync(join(packages, 'cli/testdata/policy/policy.yaml'), 'utf8')

describe('a broker and the command line', () => {
  let folder: string
  let trust: string
  let broker: ChildProcess
  const env: Record<string, string> = {}

  /** At the time of now: the broker has no other. */
  async function bagcheck(
    ...argv: string[]
  ): Promise<{ code: number; stdout: string; stderr: string }> {
    const printed = { stdout: '', stderr: '' }
    const code = await runCli(TABLE, argv, {
      env,
      signal: new AbortController().signal,
      now: () => new Date(),
      stdout: (text) => void (printed.stdout += text),
      stderr: (text) => void (printed.stderr += text),
      terminal: false,
      color: false,
    })
    return { code, ...printed }
  }

  async function json(...argv: string[]): Promise<Record<string, unknown>> {
    const { code, stdout, stderr } = await bagcheck(...argv, '--json')
    expect(code, stderr).toBe(0)
    return JSON.parse(stdout) as Record<string, unknown>
  }

  /** Compiles a version of the policy and has it signed by some of three people. */
  async function signed(version: number, ...people: number[]): Promise<string> {
    const file = join(trust, `v${version}-${people.join('')}/policy.json`)
    const yaml = join(trust, `policy-v${version}.yaml`)
    const expires = new Date(Date.now() + 86_400_000).toISOString().slice(0, 19)
    writeFileSync(
      yaml,
      source
        .replace('version: 3', `version: ${version}`)
        .replace(/^expires: .*$/m, `expires: ${expires}Z`),
    )
    await json('policy', 'compile', yaml, '-o', file)
    const previous = version === 1 ? [] : ['--previous', join(trust, 'v1-12/policy.json')]
    for (const person of people) {
      const key = join(trust, `keys/policy-${person}.pem`)
      await json('policy', 'sign', file, '--key', key, ...previous)
    }
    return file
  }

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'bagcheck-cli-'))
    trust = join(folder, 'trust')
    const { pin } = await json('policy', 'init', '--installation', 'demo', '-o', trust)
    writeFileSync(
      join(trust, 'keys/ci.pub'),
      readFileSync(join(packages, 'cli/testdata/policy/keys/ci.pub')),
    )
    const port = await findFreePort()
    const config = join(folder, 'broker.json')
    env['BAGCHECK_BROKER'] = `http://127.0.0.1:${port}`
    env['BAGCHECK_ADMIN_SOCKET'] = join(folder, 'admin.sock')
    env['BAGCHECK_TRUST'] = `sha256:${String(pin)}`
    writeFileSync(
      config,
      JSON.stringify({
        installation: 'demo',
        issuer: env['BAGCHECK_BROKER'],
        stateDir: join(folder, 'state'),
        listen: { host: '127.0.0.1', port, tls: null },
        adminSocket: env['BAGCHECK_ADMIN_SOCKET'],
        store: { sqlite: 'bagcheck.sqlite' },
        trustRoot: { pin, chain: [join(trust, 'root.json')] },
        logKey: join(trust, 'keys/log.key'),
        decisionKey: join(trust, 'keys/broker.pem'),
      }),
    )
    chmodSync(config, 0o600)
    broker = spawn(
      process.execPath,
      ['-C', '@bagcheck/source', join(packages, 'broker/src/main.ts'), '--config', config],
      { stdio: ['ignore', 'pipe', 'ignore'] },
    )
    await new Promise((resolve, reject) => {
      createInterface({ input: broker.stdout as NodeJS.ReadableStream }).once('line', resolve)
      broker.once('exit', () => reject(new Error('the broker ended')))
    })
  })
  afterAll(async () => {
    const ended = new Promise((resolve) => broker.once('exit', resolve))
    broker.kill('SIGTERM')
    await ended
    rmSync(folder, { recursive: true, force: true })
  })

  test('policy init writes secrets for their owner alone, and never over others', async () => {
    for (const name of ['root-1.pem', 'policy-3.pem', 'enrolment.pem', 'broker.pem', 'log.key'])
      expect(statSync(join(trust, 'keys', name)).mode & 0o777).toBe(0o600)
    const again = await bagcheck('policy', 'init', '--installation', 'demo', '-o', trust)
    expect(again.code).toBe(3)
    expect(again.stderr).toMatch(/FILE_EXISTS/)
  })

  test('a policy with one signature of two is refused', async () => {
    const { code, stderr } = await bagcheck('policy', 'publish', await signed(1, 1))
    expect(code).toBe(1)
    expect(stderr).toMatch(/^bagcheck: BROKER_REFUSED: POLICY_SIGNATURES: /)
  })

  test('one person cannot sign twice', async () => {
    const file = await signed(1, 3)
    const key = join(trust, 'keys/policy-3.pem')
    const { code, stderr } = await bagcheck('policy', 'sign', file, '--key', key)
    expect(code).toBe(1)
    expect(stderr).toMatch(/DSSE_SIGNED_TWICE/)
  })

  test('a policy with two is installed, and shown as who signed it', async () => {
    expect(await json('policy', 'publish', await signed(1, 1, 2))).toMatchObject({ version: 1 })
    expect(await json('policy', 'show')).toMatchObject({
      version: 1,
      signers: ['policy-1', 'policy-2'],
    })
    const { stdout } = await bagcheck('policy', 'show')
    expect(stdout).toMatch(/role orders: unit bagcheck-exec:orders, uid 61001/)
  })

  test('shown against another trust root it is refused', async () => {
    const other = `sha256:${'0'.repeat(64)}`
    const { code, stderr } = await bagcheck('policy', 'show', '--trust', other)
    expect(code).toBe(1)
    expect(stderr).toMatch(/TRUST_ROOT_PIN/)
  })

  test('version 2 without the digest of version 1 cannot be signed', async () => {
    const file = join(trust, 'no-previous/policy.json')
    writeFileSync(join(trust, 'two.yaml'), source.replace('version: 3', 'version: 2'))
    await json('policy', 'compile', join(trust, 'two.yaml'), '-o', file)
    const key = join(trust, 'keys/policy-1.pem')
    const { code, stderr } = await bagcheck('policy', 'sign', file, '--key', key)
    expect(code).toBe(2)
    expect(stderr).toMatch(/needs --previous/)
  })

  test('the log proves its entry, and the proof holds offline', async () => {
    const file = join(folder, 'entry.json')
    expect(await json('log', 'checkpoint')).toMatchObject({
      origin: 'demo.bagcheck.log',
      size: 1,
      verified: true,
    })
    expect(await json('log', 'entry', '0')).toMatchObject({ kind: 'policy', verified: true })
    expect(await json('log', 'verify')).toMatchObject({ size: 1, ok: true })
    await json('log', 'prove', '0', '-o', file)
    const root = ['--trust', join(trust, 'root.json')]
    expect(await json('log', 'verify', file, ...root)).toMatchObject({ index: 0, ok: true })
    const entry = JSON.parse(readFileSync(file, 'utf8')) as { leaf: string }
    const leaf = Buffer.from(entry.leaf, 'base64')
    leaf[5] = (leaf[5] ?? 0) ^ 1
    writeFileSync(file, JSON.stringify({ ...entry, leaf: leaf.toString('base64') }))
    const { code, stderr } = await bagcheck('log', 'verify', file, ...root)
    expect(code).toBe(1)
    expect(stderr).toMatch(/LOG_PROOF/)
  })

  test('an entry that is not there is refused', async () => {
    const { code, stderr } = await bagcheck('log', 'entry', '99')
    expect(code).toBe(1)
    expect(stderr).toMatch(/BROKER_REFUSED/)
  })

  test('no node is enrolled, and a node that is not there cannot be banned', async () => {
    expect(await json('node', 'list')).toEqual({ nodes: [] })
    const { code } = await bagcheck('node', 'ban', 'demo-1', '--reason', 'test')
    expect(code).toBe(1)
  })

  test('a join token is signed offline, for its owner alone', async () => {
    const file = join(folder, 'join.json')
    const key = ['--key', join(trust, 'keys/enrolment.pem')]
    const argv = ['node', 'join-token', '--installation', 'demo', ...key, '--class', 'demo']
    const { tokenId } = await json(...argv, '-o', file)
    expect(tokenId).toMatch(/^[0-9a-f]{32}$/)
    expect(statSync(file).mode & 0o777).toBe(0o600)
    expect(existsSync(file)).toBe(true)
  })

  test('there is nothing to submit in an empty directory, and nothing to export for no token', async () => {
    const empty = await bagcheck('attest', 'submit', mkdtempSync(join(folder, 'empty-')))
    expect(empty.code).toBe(3)
    expect(empty.stderr).toMatch(/^bagcheck: NOT_FOUND: /)
    const none = await bagcheck('evidence', 'export', 'no-such-token', '-o', join(folder, 'e.json'))
    expect(none.code).toBe(1)
    const unexplained = await bagcheck('explain', 'no-such-decision')
    expect(unexplained.code).toBe(1)
  })

  test('an authority is prepared, activated, tainted and revoked, in this order and no other', async () => {
    expect(await json('authority', 'list')).toEqual({ authorities: [] })
    const { id } = await json('authority', 'prepare', 'jwt')
    const state = async (): Promise<unknown> =>
      ((await json('authority', 'list'))['authorities'] as { state: string }[])[0]?.state
    expect(await state()).toBe('prepared')
    const because = ['--reason', 'test']
    const early = await bagcheck('authority', 'revoke', String(id), ...because)
    expect([early.code, early.stderr]).toEqual([1, expect.stringContaining('AUTHORITY_STATE')])
    expect(await json('authority', 'activate', String(id))).toMatchObject({ id })
    expect(await state()).toBe('active')
    await json('authority', 'taint', String(id), ...because)
    expect(await state()).toBe('tainted')
    await json('authority', 'revoke', String(id), ...because)
    expect(await json('authority', 'list')).toEqual({ authorities: [] })
    expect((await bagcheck('authority', 'prepare', 'ssh')).code).toBe(2)
    expect((await bagcheck('authority', 'taint', String(id))).code).toBe(2)
  })

  test('doctor finds the broker ready', async () => {
    const { stdout } = await bagcheck('doctor', '--agent', join(folder, 'no-agent'), '--json')
    const { findings } = JSON.parse(stdout) as { findings: { what: string; state: string }[] }
    expect(findings.find(({ what }) => what === 'broker')).toMatchObject({ state: 'ok' })
    expect(findings.find(({ what }) => what === 'agent')).toMatchObject({ state: 'note' })
  })
})
