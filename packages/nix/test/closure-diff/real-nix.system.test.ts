// Random closures that only a database of real Nix knows, one of its own: Nix's diff-closures and why-depends,
// neither of which reads content, against ours.
import { spawnSync } from 'node:child_process'
import { hash } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { nixAvailable, nixEnvironment, runNix } from '@bagcheck/testkit'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  buildManifest,
  diffClosures,
  narHashDigest,
  parseNarHash,
  parseStorePathBase,
  referenceChains,
  shortestChain,
} from '@bagcheck/nix'
import type { ClosureManifest, PathInfo, StorePath } from '@bagcheck/nix'

let scratch: string
const environment = (): NodeJS.ProcessEnv =>
  nixEnvironment({ NIX_STATE_DIR: join(scratch, 'state') })
const nix = (...args: string[]): string =>
  runNix(
    'nix',
    ['--extra-experimental-features', 'nix-command', ...args],
    environment(),
  ).replaceAll(/\u001b\[[0-9;]*m/g, '')

let made = 0
const files: string[] = []

/** A path that was not there before, so that tests do not meet. */
function freshPath(name: string): StorePath {
  const digits = hash('sha256', `${name} ${made++} ${process.pid}`).replaceAll('e', 'z')
  return parseStorePathBase(`${digits.slice(0, 32)}-${name}`)
}

/** Makes Nix take the paths for valid. */
function register(infos: readonly PathInfo[]): void {
  const text = infos.map(({ path, narHash, narSize, references }) => {
    writeFileSync(path, '') // Nix looks whether a path on its command line is there
    files.push(path)
    const base16 = Buffer.from(narHashDigest(narHash)).toString('hex')
    return `${[path, base16, narSize, '', references.length, ...references].join('\n')}\n`
  })
  const { status, stderr } = spawnSync('nix-store', ['--load-db'], {
    input: text.join(''),
    env: environment(),
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(stderr)
}

const info = (path: StorePath, narSize: number, references: readonly StorePath[]): PathInfo => ({
  path,
  narHash: parseNarHash(`sha256:${hash('sha256', path)}`),
  narSize,
  references,
})

/** Prints a diff of ours as Nix prints its own. */
function asNix(before: ClosureManifest, after: ClosureManifest): string[] {
  return diffClosures(before, after)
    .packages.flatMap(({ pname, versionsBefore, versionsAfter, narBytesDelta }) => {
      const show = (versions: readonly string[]): string =>
        versions.length === 0
          ? '∅'
          : versions
              .map((version) => version || 'ε')
              .sort()
              .join(', ')
      const removed = versionsBefore.filter((version) => !versionsAfter.includes(version))
      const added = versionsAfter.filter((version) => !versionsBefore.includes(version))
      const parts = [
        ...(removed.length + added.length > 0 ? [`${show(removed)} → ${show(added)}`] : []),
        ...(Math.abs(narBytesDelta) >= 8192
          ? [`${narBytesDelta > 0 ? '+' : ''}${(narBytesDelta / 1024).toFixed(1)} KiB`]
          : []),
      ]
      return parts.length === 0 ? [] : [`${pname}: ${parts.join(', ')}`]
    })
    .sort()
}

describe.runIf(nixAvailable())('closures in the database of real Nix', () => {
  beforeAll(() => {
    scratch = mkdtempSync('/var/tmp/bagcheck-random-test-')
    mkdirSync('/nix/store', { recursive: true })
  })
  afterAll(() => {
    for (const file of files) rmSync(file, { force: true })
    rmSync(scratch, { recursive: true })
  })

  test('differ as nix store diff-closures says', () => {
    const name = fc
      .tuple(
        fc.constantFrom('glibc', 'python3.11-six', 'bash', 'x11', 'foo-bar', 'lib2geom'),
        fc.constantFrom('', '-1.0', '-1.1', '-2.0pre1', '-0-unstable-2024-01-01', '-2.38-66'),
        fc.constantFrom('', '', '-bin', '-dev', '-lib', '-lib64'),
      )
      // Without a version Nix takes the last word for an output: of python3.11-six the output "six".
      .map(([pname, version, output]) =>
        version === '' ? pname.replaceAll('-', '_') : pname + version + output,
      )
    // Multiples of 1024, so that both round alike; around the 8 KiB that Nix hides.
    const item = fc.record({
      name,
      narSize: fc.nat({ max: 20 }).map((kib) => kib * 1024),
      where: fc.constantFrom('before', 'after', 'both'),
    })
    for (const items of fc.sample(fc.array(item, { minLength: 1, maxLength: 60 }), 12)) {
      const paths = items.map((one) => ({ ...one, path: freshPath(one.name) }))
      const side = (wanted: string): ClosureManifest => {
        const members = paths
          .filter(({ where }) => where === wanted || where === 'both')
          .map(({ path, narSize }) => info(path, narSize, []))
        const root = freshPath('root')
        const refs = members.map(({ path }) => path)
        const infos = [...members, info(root, 1024, refs)]
        register(infos)
        return buildManifest(root, infos)
      }
      const [before, after] = [side('before'), side('after')]
      const theirs = nix('store', 'diff-closures', before.root, after.root).split('\n')
      expect(asNix(before, after)).toEqual(theirs.filter((line) => line !== '').sort())
    }
  })

  test('have the chains that nix why-depends draws', () => {
    const edges = fc.array(fc.array(fc.nat({ max: 11 }), { maxLength: 4 }), {
      minLength: 12,
      maxLength: 12,
    })
    for (const graph of fc.sample(edges, 6)) {
      const infos: PathInfo[] = []
      for (const below of graph) {
        const references = below.filter((at) => at < infos.length).map((at) => infos[at]?.path)
        const path = freshPath('node')
        infos.push(info(path, 120, [...new Set(references.filter((one) => one !== undefined))]))
      }
      const root = freshPath('root')
      infos.push(
        info(
          root,
          120,
          infos.map(({ path }) => path),
        ),
      )
      register(infos)
      const manifest = buildManifest(root, infos)
      for (const { path } of infos.slice(0, 3)) {
        const { chains } = referenceChains(manifest, path, { maxChains: 100_000 })
        const ours = chains.flatMap((chain) => chain.slice(1).map((to, n) => `${chain[n]} ${to}`))
        const tree = nix('why-depends', '--all', root, path).trim().split('\n')
        expect(new Set(ours)).toEqual(edgesOf(tree))
        expect(shortestChain(manifest, path)).toHaveLength(
          nix('why-depends', root, path).trim().split('\n').length,
        )
      }
    }
  })
})

/** The edges of a tree as Nix draws it: four columns for each level. */
function edgesOf(lines: readonly string[]): Set<string> {
  const edges = new Set<string>()
  const above: string[] = []
  for (const line of lines) {
    const start = line.indexOf('/nix/store/')
    const path = line.slice(start)
    if (start > 0) edges.add(`${above[start / 4 - 1]} ${path}`)
    above[start / 4] = path
  }
  return edges
}
