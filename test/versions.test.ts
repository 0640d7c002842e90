// One version for all packages; what the programs say of themselves is that version.
import { globSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { AGENT_VERSION } from '../packages/agent/src/version.ts'
import { VERSION as BROKER_VERSION } from '../packages/broker/src/routes/discovery.ts'
import { CLI_VERSION } from '../packages/cli/src/version.ts'

const versionOf = (file: string): unknown => JSON.parse(readFileSync(file, 'utf8')).version
const version = versionOf('package.json')

test.each(globSync('packages/*/package.json').toSorted())('%s has the one version', (file) => {
  expect(versionOf(file)).toBe(version)
})

test.each(Object.entries({ AGENT_VERSION, BROKER_VERSION, CLI_VERSION }))(
  '%s is the one version',
  (_name, said) => {
    expect(said).toBe(version)
  },
)
