import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { run } from './transcript.ts'

const testdata = join(import.meta.dirname, '../testdata/policy')

let folder: string
let trust: string
beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bagcheck-sign-'))
  trust = join(folder, 'trust')
  await run(['policy', 'init', '--installation', 'demo', '-o', trust])
  copyFileSync(join(testdata, 'keys/ci.pub'), join(trust, 'keys/ci.pub'))
  const source = readFileSync(join(testdata, 'policy.yaml'), 'utf8')
  for (const version of [1, 2]) {
    const yaml = join(trust, `v${version}.yaml`)
    writeFileSync(yaml, source.replace('version: 3', `version: ${version}`))
    const { code } = await run(['policy', 'compile', yaml, '-o', join(trust, `v${version}.json`)])
    expect(code).toBe(0)
  }
})
afterAll(() => rmSync(folder, { recursive: true }))

const key = (name: string): string => join(trust, `keys/${name}.pem`)
const sign = (version: number, name: string, ...more: string[]): ReturnType<typeof run> =>
  run(['policy', 'sign', join(trust, `v${version}.json`), '--key', key(name), ...more])

describe('policy sign with --trust', () => {
  const withTrust = (): string[] => ['--trust', join(trust, 'root.json')]

  test('counts towards the threshold', async () => {
    const first = await sign(1, 'policy-1', ...withTrust())
    expect(first.stdout).toContain('policy.dsse.json: 1 of 2 signatures, this one by')
    const second = await sign(1, 'policy-2', ...withTrust())
    expect(second.stdout).toContain('policy.dsse.json: 2 of 2 signatures')
  })

  test('refuses a key of another role, and writes nothing', async () => {
    const output = join(folder, 'refused.json')
    const { code, stderr } = await sign(1, 'root-1', ...withTrust(), '-o', output)
    expect(code).toBe(1)
    expect(stderr).toContain('expected a policy key of the trust root, saw a key of role root')
    expect(() => readFileSync(output)).toThrow('ENOENT')
  })
})

test('a second version over the envelope of the first says what to do', async () => {
  await sign(1, 'policy-1')
  const { stderr } = await sign(2, 'policy-1', '--previous', join(trust, 'v1.json'))
  expect(stderr).toMatch(
    /POLICY_STATEMENT: .*; move .*policy\.dsse\.json away, or give each version/,
  )
})

test('a join token by a key that may not enrol is refused where it is made', async () => {
  const argv = ['node', 'join-token', '--installation', 'demo', '--class', 'demo']
  const output = join(folder, 'join.json')
  const more = ['-o', output, '--trust', join(trust, 'root.json')]
  expect((await run([...argv, '--key', key('policy-1'), ...more])).code).toBe(1)
  expect((await run([...argv, '--key', key('enrolment'), ...more])).code).toBe(0)
})
