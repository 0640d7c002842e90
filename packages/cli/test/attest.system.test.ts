// `bagcheck attest` on closures that real Nix built.
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateSigningKey, parseEnvelopeLines, verifyEnvelope } from '@bagcheck/attest'
import { nixAvailable, nixBuild, shellDerivation } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { run } from './transcript.ts'

interface Statement {
  readonly predicateType: string
  readonly subject: unknown
  readonly predicate: {
    readonly flake: unknown
    readonly build: unknown
    readonly successorOf: unknown
  }
}

describe.skipIf(!nixAvailable())('bagcheck attest, on a closure of real Nix', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bagcheck-attest-'))
  const key = join(folder, 'ci.pem')
  const { signing, pem } = generateSigningKey()
  let root: string
  let count = 0

  beforeAll(() => {
    writeFileSync(key, pem, { mode: 0o600 })
    root = nixBuild(shellDerivation('parcel', 'mkdir $out; echo hello > $out/hello'))
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  /** The statements in NAME.intoto.jsonl, each of which CI's key signed. */
  async function attest(...options: string[]): Promise<Statement[]> {
    const out = join(folder, String(count++))
    const argv = ['attest', root, '--key', key, '-o', out, '--source', 'database', ...options]
    const { code, stderr } = await run(argv, process.env as Record<string, string>)
    expect(code, stderr).toBe(0)
    const file = readdirSync(out).find((name) => name.endsWith('.intoto.jsonl')) ?? ''
    return parseEnvelopeLines(readFileSync(join(out, file))).map((envelope) => {
      const { payload } = verifyEnvelope(envelope, [signing], 1)
      return JSON.parse(Buffer.from(payload).toString()) as Statement
    })
  }

  test('what nobody stated is unknown', async () => {
    const [closure, ...more] = await attest()
    expect(more).toEqual([])
    const unknown = { value: null, source: 'unknown' }
    expect(closure?.predicate).toMatchObject({
      flake: { url: unknown, rev: unknown, narHash: unknown },
      build: { impure: unknown, rebuild: unknown },
      successorOf: [],
    })
  })

  test('every build fact is printed with its source, and an unknown one with how to state it', async () => {
    const out = join(folder, 'printed')
    const argv = ['attest', root, '--key', key, '-o', out, '--source', 'database']
    const { stdout } = await run(argv, process.env as Record<string, string>)
    expect(stdout).toMatch(/^ {2}impure +UNKNOWN: state --pure or --impure$/m)
    expect(stdout).toMatch(/^ {2}sandboxFallback +(true|false) \(nix show-config.*\)$/m)
    const stated = await run([...argv, '--pure'], process.env as Record<string, string>)
    expect(stated.stdout).toMatch(/^ {2}impure +false \(given by the caller\)$/m)
  })

  test('what the caller states is recorded as stated by the caller', async () => {
    const narHash = `sha256-${Buffer.alloc(32, 7).toString('base64')}`
    const rev = 'b'.repeat(40)
    const before = 'a'.repeat(64)
    const [closure, provenance] = await attest(
      ...['--flake', 'github:example/parcel', '--rev', rev, '--source-hash', narHash],
      ...['--pure', '--rebuild', 'match', '--successor-of', before],
      ...['--builder-id', 'https://ci.example.org/builder'],
    )
    const source = 'given by the caller'
    expect(closure?.predicate).toMatchObject({
      flake: {
        url: { value: 'github:example/parcel', source },
        rev: { value: rev, source },
        narHash: { value: narHash, source },
      },
      build: { impure: { value: false, source }, rebuild: { value: 'match', source } },
      successorOf: [{ sha256: before }],
    })
    expect(provenance?.predicateType).toBe('https://slsa.dev/provenance/v1')
    expect(provenance?.subject).toEqual(closure?.subject)
  })

  test.each([
    ['--rebuild', 'perhaps', 'USAGE: --rebuild: expected match, mismatch, not-run'],
    ['--builder-id', 'us', 'USAGE: --builder-id: expected a URI'],
    ['--source-hash', 'sha1:00', 'HASH: expected sha1 in base16'],
    ['--successor-of', 'orders-1.0', 'HASH: expected 64 lower-case hexadecimal digits'],
  ])('refuses %s %s before anything is written', async (option, value, message) => {
    const out = join(folder, 'refused')
    const { code, stderr } = await run(['attest', root, '--key', key, '-o', out, option, value])
    expect(code).not.toBe(0)
    expect(stderr).toContain(message)
    expect(readdirSync(folder)).not.toContain('refused')
  })
})
