// The READMEs' examples that need nothing but Node, run as they stand.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'

/** What the example of each of these packages prints. */
const PRINTED: Readonly<Record<string, RegExp>> = {
  api: /^BROKER_UNREACHABLE \n$/,
  attest: /^\/nix\/store\/0{32}-hello-1\.0 true\n$/,
  log: /^entry 1 of 3 is in the log\n$/,
  testkit: /^true\n$/,
}

test.each(readdirSync('packages'))('%s has a README', (name) => {
  expect(existsSync(`packages/${name}/README.md`)).toBe(true)
})

describe('the example of the README', () => {
  test.each(Object.entries(PRINTED))('of %s runs', (name, printed) => {
    const readme = readFileSync(`packages/${name}/README.md`, 'utf8')
    const example = /^```ts\n(.*?)^```$/ms.exec(readme)?.[1] ?? ''
    const { stdout, stderr } = spawnSync(
      process.execPath,
      [...process.execArgv, '--input-type=module-typescript', '-', '/nowhere/admin.sock'],
      { input: example, encoding: 'utf8' },
    )
    expect(stderr).toBe('')
    expect(stdout).toMatch(printed)
  })
})
