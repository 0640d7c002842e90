// Pages of docs/ whose commands are run as they stand: every block marked `sh`, in one shell. Only `nix-build` is
// replaced, because there is no nixpkgs here: it answers with programs of this machine, made into closures.
import { execFileSync, spawnSync, type SpawnSyncReturns } from 'node:child_process'
import { readFileSync, realpathSync, symlinkSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { nixBuild } from '@bagcheck/testkit'

const workspace = resolve(import.meta.dirname, '..')

/** Whether pages can be walked here: with a curl of this machine. */
export const curl: string | undefined = ['/usr/bin/curl'].find(
  (file) => spawnSync(file, ['--version']).status === 0,
)

/** The blocks of a page, in order. */
export function blocksOf(page: string): string[] {
  const text = readFileSync(join(workspace, 'docs', page), 'utf8')
  return [...text.matchAll(/^```sh\n(.*?)^```$/gms)].map(([, block = '']) => block)
}

/** Packs the programs into `directory`, where pages are walked. */
export function packPrograms(directory: string): void {
  const args = ['-C', '@bagcheck/source', join(workspace, 'scripts/build.ts')]
  execFileSync(process.execPath, [...args, join(directory, 'dist')])
  symlinkSync(process.execPath, join(directory, 'dist/node'))
}

/** Runs `blocks` in one shell, whose `nix-build` does what `nixBuildBody` does. */
export function walk(
  directory: string,
  nixBuildBody: string,
  blocks: readonly string[],
): SpawnSyncReturns<string> {
  const script = [
    'set -eum',
    'trap "kill %1 %2 2> /dev/null || true" EXIT',
    `nix-build() { ${nixBuildBody}; }`,
    ...blocks,
  ].join('\n')
  return spawnSync('bash', ['-c', script], {
    cwd: directory,
    encoding: 'utf8',
    env: { ...process.env, PATH: `${join(directory, 'dist')}:${process.env['PATH']}` },
  })
}

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
export function buildCurl(program: string): string {
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
