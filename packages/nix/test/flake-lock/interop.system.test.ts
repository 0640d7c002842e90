// Locks of newer releases of Nix, which write relative paths and files that 2.8 does not know.
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join, normalize } from 'node:path'
import { nixAvailable, nixReleases, runNixRelease } from '@bagcheck/testkit'
import { describe, expect, test } from 'vitest'
import {
  auditFlakeLock,
  findFlakeInput,
  flakeTree,
  parseFlakeLock,
  printFlakeLock,
} from '@bagcheck/nix'
import type { LockedNode } from '@bagcheck/nix'

const releases = nixAvailable() ? await nixReleases() : []
// The reason is printed where there are none.
test.skipIf(releases.length === 0)('there are newer releases of Nix that write locks', () => {
  expect(releases).not.toEqual([])
})

describe.each(releases)('Nix $version', (release) => {
  test('writes locks that come back byte for byte, with trees where it has them', () => {
    const scratch = mkdtempSync('/var/tmp/bagcheck-lock-interop-')
    try {
      const flake = (directory: string, text: string): void => {
        mkdirSync(join(scratch, directory), { recursive: true })
        writeFileSync(join(scratch, directory, 'flake.nix'), `{ ${text} }\n`)
      }
      const run = (program: string, ...args: string[]): void => {
        const { status, stderr } = spawnSync(program, args, { encoding: 'utf8', cwd: scratch })
        if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`)
      }
      const nix = (...args: string[]): string =>
        runNixRelease(release, join(scratch, 'store'), 'nix', [
          ...['--extra-experimental-features', 'flakes', '--option', 'flake-registry', ''],
          ...args,
        ])

      writeFileSync(join(scratch, 'data.txt'), 'text\n')
      mkdirSync(join(scratch, 'tree'))
      writeFileSync(join(scratch, 'tree/file'), 'text\n')
      run('tar', '-czf', 'tree.tar.gz', 'tree')
      flake('other', 'inputs.inner.url = "./inner"; outputs = _: { };')
      flake('other/inner', 'outputs = _: { };')
      const git = ['-C', 'other', '-c', 'user.name=test', '-c', 'user.email=test@example.org']
      run('git', ...git, 'init', '--quiet', '--initial-branch', 'main')
      run('git', ...git, 'add', '.')
      run('git', ...git, 'commit', '--quiet', '--message', 'first')
      flake('sub/nix', 'inputs.near.url = "path:../near"; outputs = _: { };')
      flake('sub/near', 'outputs = _: { };')
      flake('root/a', 'inputs.b.url = "./b"; outputs = _: { };')
      flake('root/a/b', 'outputs = _: { };')
      flake(
        'root',
        `inputs = {
           file = { url = "file+file://${scratch}/data.txt"; flake = false; };
           tarball = { url = "file://${scratch}/tree.tar.gz"; flake = false; };
           other.url = "git+file://${scratch}/other";
           sub.url = "path:${scratch}/sub?dir=nix";
           a.url = "./a";
           b.follows = "a/b";
         };
         outputs = inputs: {
           paths = builtins.mapAttrs (_: input: input.outPath) (removeAttrs inputs [ "self" ]) // {
             "other/inner" = inputs.other.inputs.inner.outPath;
             "sub/near" = inputs.sub.inputs.near.outPath;
             "a/b" = inputs.a.inputs.b.outPath;
           };
         };`,
      )
      nix('flake', 'lock', `path:${scratch}/root`)
      const text = readFileSync(join(scratch, 'root/flake.lock'))
      const lock = parseFlakeLock(text)
      expect(printFlakeLock(lock)).toBe(text.toString())

      const self = JSON.parse(nix('flake', 'metadata', '--json', `path:${scratch}/root`)) as {
        path: string
      }
      const paths: unknown = JSON.parse(nix('eval', '--json', `path:${scratch}/root#paths`))
      const theirs = Object.entries(paths as Record<string, string>)
      const ours = theirs.map(([name]) => {
        const node = findFlakeInput(lock, name.split('/')) as LockedNode
        const tree = flakeTree(lock, node)
        const parts = [tree?.directory, node.locked['dir']].filter(Boolean)
        return [name, [tree?.storePath ?? self.path, ...parts].join('/')]
      })
      expect(ours).toEqual(theirs.map(([name, path]) => [name, normalize(path)]))
      expect(ours).toHaveLength(9)
      const relative = auditFlakeLock(lock).filter(({ problem }) => problem === 'relative-path')
      expect(relative).toHaveLength(4)
      expect(auditFlakeLock(lock).filter(({ severity }) => severity === 'error')).toEqual([])
    } finally {
      rmSync(scratch, { recursive: true })
    }
  })
})
