// docs/spiffe.md, run as it stands: after the steps of docs/first-token.md, and before the one that clears up. Opt-in,
// as its client is downloaded and built: BAGCHECK_INTEROP=1 (npm run interop).
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { nixAvailable, nixBuild, nixString } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startDaemon } from '../packages/cli/src/demo/build.ts'
import { spireAgent } from '../packages/cli/test/spiffe/clients.ts'
import { blocksOf, buildCurl, curl, packPrograms, walk } from './page.ts'

const canRun =
  process.env['BAGCHECK_PRIVATE_ROOT'] !== undefined && nixAvailable() && curl !== undefined
const spire = canRun ? await spireAgent() : undefined

/** The static program under the name of the output that nixpkgs has. */
const buildSpire = (program: string): string =>
  nixBuild(`derivation {
    name = "spire-1-agent"; system = builtins.currentSystem; builder = "/bin/sh"; PATH = "/bin";
    args = [ "-ec" ''
      mkdir -p $out/bin
      cp \${builtins.path { path = /. + ${nixString(program)}; name = "program"; }} $out/bin/spire-agent
      chmod 755 $out/bin/spire-agent
    '' ];
  }`)

describe.skipIf(spire === undefined)('docs/spiffe.md', () => {
  let directory: string
  let daemon: Awaited<ReturnType<typeof startDaemon>>
  beforeAll(async () => {
    daemon = await startDaemon(AbortSignal.timeout(60_000))
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-spiffe-page-'))
    packPrograms(directory)
  })
  afterAll(() => {
    daemon.kill('SIGKILL')
    rmSync(directory, { recursive: true, force: true })
    rmSync('/run/bagcheck-first', { recursive: true, force: true })
  })

  test('leads from a first token to SVIDs, and to a denial', () => {
    const first = blocksOf('first-token.md')
    const bags = `case "$*" in *spire*) echo ${buildSpire(spire ?? '')};; *) echo ${buildCurl(curl ?? '')};; esac`
    const blocks = [...first.slice(0, -1), ...blocksOf('spiffe.md'), ...first.slice(-1)]
    const { status, stdout, stderr } = walk(directory, bags, blocks)
    expect([status, stderr]).toEqual([0, expect.not.stringMatching(/error|bagcheck: /)])
    expect(stdout).toMatch(/^SPIFFE ID:\s+spiffe:\/\/first.example.org\/role\/svid-client$/m)
    expect(stdout).toMatch(/^token\(spiffe:\/\/first.example.org\/role\/svid-client\):$/m)
    expect(stdout).toMatch(/PermissionDenied desc = UID_NOT_ALLOWED: .* uid 61003/)
  })
})
