// docs/first-token.md, run as it stands.
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { nixAvailable } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { startDaemon } from '../packages/cli/src/demo/build.ts'
import { blocksOf, buildCurl, curl, packPrograms, walk } from './page.ts'

const inPrivateRoot = process.env['BAGCHECK_PRIVATE_ROOT'] !== undefined

describe.skipIf(!inPrivateRoot || !nixAvailable() || curl === undefined)(
  'docs/first-token.md',
  () => {
    let directory: string
    let daemon: Awaited<ReturnType<typeof startDaemon>>
    beforeAll(async () => {
      daemon = await startDaemon(AbortSignal.timeout(60_000))
      directory = mkdtempSync(join(tmpdir(), 'bagcheck-first-token-'))
      packPrograms(directory)
    })
    afterAll(() => {
      daemon.kill('SIGKILL')
      rmSync(directory, { recursive: true, force: true })
      rmSync('/run/bagcheck-first', { recursive: true, force: true })
    })

    test('leads to a token, to a denial, and leaves nothing', () => {
      const blocks = blocksOf('first-token.md')
      expect(blocks.length).toBeGreaterThan(6)
      const bag = buildCurl(curl ?? '')
      const { status, stdout, stderr } = walk(directory, `echo ${bag}`, blocks)
      expect(stderr).not.toMatch(/error|bagcheck: /)
      expect(stdout).toMatch(/"accessToken":"ey/)
      expect(stdout).toMatch(/"code":"UID_NOT_ALLOWED"/)
      expect(stdout).toMatch(/^decision .*DENIED$/m)
      expect(status).toBe(0)
      expect(existsSync('/run/bagcheck-first')).toBe(false)
      expect(readdirSync(directory)).toEqual(['dist'])
    })
  },
)
