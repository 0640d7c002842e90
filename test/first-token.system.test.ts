// docs/first-token.md, run as it stands: every block marked `sh`, in one shell. Only `nix-build` is replaced,
// because there is no nixpkgs here: it answers with this machine's curl, made into a closure of its own.
import { execFileSync, spawnSync } from 'node:child_process'
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { startDaemon } from '../packages/cli/src/demo/build.ts'
import { nixAvailable, nixBuild } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

const workspace = resolve(import.meta.dirname, '..')
const inPrivateRoot = process.env['BAGCHECK_PRIVATE_ROOT'] !== undefined
const curl = ['/usr/bin/curl'].find((file) => spawnSync(file, ['--version']).status === 0)

const nix = (value: unknown): string =>
  `(builtins.fromJSON ${JSON.stringify(JSON.stringify(value)).replaceAll('${', '\\${')})`
const named = (file: string): { name: string; path: string } => ({
  name: basename(file),
  path: realpathSync(file),
})

function linkage(program: string): { loader: object; libraries: object[] } {
  const lines = execFileSync('ldd', [program], { encoding: 'utf8' })
  const libraries = [...lines.matchAll(/^\s*\S+ => (\/\S+) \(/gm)].map(([, file = '']) =>
    named(file),
  )
  return { loader: named(/^\s*(\/\S+) \(/m.exec(lines)?.[1] ?? ''), libraries }
}

/** This machine's curl with its libraries, relinked into the store. */
function buildCurl(program: string): string {
  const which = (name: string): string =>
    realpathSync(execFileSync('which', [name], { encoding: 'utf8' }).trim())
  const patchelf = which('patchelf')
  const busybox = which('busybox')
  const input = {
    name: 'curl',
    version: '1.0',
    program: named(program),
    ...linkage(program),
  }
  const tools = { patchelf: named(patchelf), ...linkage(patchelf) }
  const folder = `builtins.path { path = ${join(busybox, '..')}; name = "busybox"; filter = file: type: file == "${busybox}"; }`
  return nixBuild(
    `import ${join(workspace, 'packages/cli/src/demo/nix/relink.nix')} (${nix(input)} // {
      tools = ${nix(tools)} // { busybox = "\${${folder}}/${basename(busybox)}"; };
    })`,
  )
}

describe.skipIf(!inPrivateRoot || !nixAvailable() || curl === undefined)(
  'docs/first-token.md',
  () => {
    let directory: string
    let daemon: Awaited<ReturnType<typeof startDaemon>>
    beforeAll(async () => {
      daemon = await startDaemon(AbortSignal.timeout(60_000))
      directory = mkdtempSync(join(tmpdir(), 'bagcheck-first-token-'))
      const args = ['-C', '@bagcheck/source', join(workspace, 'scripts/build.ts')]
      execFileSync(process.execPath, [...args, join(directory, 'dist')])
      symlinkSync(process.execPath, join(directory, 'dist/node'))
    })
    afterAll(() => {
      daemon.kill('SIGKILL')
      rmSync(directory, { recursive: true, force: true })
      rmSync('/run/bagcheck-first', { recursive: true, force: true })
    })

    test('leads to a token, to a denial, and leaves nothing', () => {
      const text = readFileSync(join(workspace, 'docs/first-token.md'), 'utf8')
      const blocks = [...text.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block = '']) => block)
      expect(blocks.length).toBeGreaterThan(6)
      const script = [
        'set -eum',
        'trap "kill %1 %2 2> /dev/null || true" EXIT',
        `nix-build() { echo ${buildCurl(curl ?? '')}; }`,
        ...blocks,
      ].join('\n')
      const { status, stdout, stderr } = spawnSync('bash', ['-c', script], {
        cwd: directory,
        encoding: 'utf8',
        env: { ...process.env, PATH: `${join(directory, 'dist')}:${process.env['PATH']}` },
      })
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
