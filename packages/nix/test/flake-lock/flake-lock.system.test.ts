// Locks that real Nix writes, against what we read in them.
import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { nixAvailable, nixEnvironment, runNix } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  auditFlakeLock,
  findFlakeInput,
  flakeInputs,
  flakeTree,
  parseFlakeLock,
  printFlakeLock,
} from '@bagcheck/nix'
import type { LockedNode } from '@bagcheck/nix'
import { lockText } from './locks.ts'

const EMPTY = 'outputs = _: { }'

describe.runIf(nixAvailable())('a flake.lock of real Nix', () => {
  let scratch: string

  /** Nix with flakes, and without registries. */
  const flakes = (...args: string[]): string =>
    runNix('nix', [
      '--extra-experimental-features',
      'nix-command flakes',
      '--flake-registry',
      '',
      ...args,
    ])

  const run = (program: string, ...args: string[]): void => {
    const { status, stderr } = spawnSync(program, args, { encoding: 'utf8', env: nixEnvironment() })
    if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`)
  }

  const flake = (name: string, text: string): string => {
    const directory = join(scratch, name)
    mkdirSync(directory, { recursive: true })
    writeFileSync(join(directory, 'flake.nix'), `{ ${text}; }\n`)
    return directory
  }

  const repository = (name: string, text: string): string => {
    const directory = flake(name, text)
    run('git', '-C', directory, 'init', '--quiet', '--initial-branch', 'main')
    run('git', '-C', directory, 'add', '.')
    const author = ['-c', 'user.name=test', '-c', 'user.email=test@example.org']
    run('git', '-C', directory, ...author, 'commit', '--quiet', '--message', 'first')
    return `git+file://${directory}?ref=main`
  }

  beforeAll(() => {
    scratch = mkdtempSync('/var/tmp/bagcheck-flake-test-')
  })
  afterAll(() => rmSync(scratch, { recursive: true }))

  test('comes back byte for byte, and its trees have the paths that Nix gave them', () => {
    const leaf = repository('leaf', EMPTY)
    const left = repository('left', `inputs.leaf.url = "${leaf}"; ${EMPTY}`)
    const right = repository('right', `inputs.left.url = "${left}"; ${EMPTY}`)
    const data = flake('data', EMPTY)
    writeFileSync(join(data, 'caf\u00e9'), 'text')
    run('tar', '-C', scratch, '-czf', join(scratch, 'data.tar.gz'), 'data')
    flake('root/below', EMPTY)
    const root = flake(
      'root',
      `inputs = {
         below.url = "path:./below";
         left.url = "${left}";
         right = { url = "${right}"; inputs.left.follows = "left"; };
         again = { url = "${right}"; };
         leaf.follows = "left/leaf";
         self-again = { url = "${left}"; inputs.leaf.follows = ""; };
         data = { url = "path:${data}"; flake = false; };
         archive = { url = "file://${scratch}/data.tar.gz"; flake = false; };
       }; outputs = inputs: {
         paths = builtins.mapAttrs (_: input: input.outPath) (removeAttrs inputs [ "self" ])
           // { "left/leaf" = inputs.left.inputs.leaf.outPath; };
       }`,
    )
    flakes('flake', 'lock', `path:${root}`)
    const text = readFileSync(join(root, 'flake.lock'))
    const lock = parseFlakeLock(text)
    expect(printFlakeLock(lock)).toBe(text.toString())
    expect(lock.version).toBe(7)
    expect(lock.unreachable).toEqual([])
    const follows = lock.nodes.get('right')?.inputs.get('left')
    expect(follows).toEqual({ ...lock.root.inputs.get('left'), follows: ['left'] })

    const evaluated = flakes('eval', '--json', `path:${root}#paths`)
    const paths = JSON.parse(evaluated) as Record<string, string>
    expect(Object.keys(paths)).toHaveLength(9)
    for (const [name, path] of Object.entries(paths)) {
      const node = findFlakeInput(lock, name.split('/')) as LockedNode
      expect([name, flakeTree(lock, node)]).toEqual([name, { storePath: path, directory: '' }])
    }
    expect(flakeInputs(lock).map(({ path }) => path.join('/'))).toContain('again/left')

    const problems = auditFlakeLock(lock).map(({ path, problem }) => [path?.join('/'), problem])
    expect(problems).toContainEqual(['data', 'local-path'])
    expect(problems).toContainEqual(['archive', 'mutable-url'])
    expect(problems).toContainEqual(['below', 'relative-path'])
    expect(problems.filter(([, problem]) => problem === 'unlocked')).toEqual([])

    // What `nix flake metadata` prints is the lock too.
    const metadata = JSON.parse(flakes('flake', 'metadata', '--json', `path:${root}`)) as {
      locks: unknown
    }
    expect(parseFlakeLock(Buffer.from(JSON.stringify(metadata.locks)))).toEqual(lock)
  })

  const path = (members: object): object => ({
    locked: { type: 'path', path: '/var/empty' },
    original: { type: 'path', path: '/var/empty' },
    ...members,
  })
  test.each<[string, object, string]>([
    ['an input that is no node', { root: { inputs: { a: 'b' } } }, 'FLAKE_LOCK_INPUT'],
    ['the root as an input', { root: { inputs: { a: 'root' } } }, 'FLAKE_LOCK_CYCLE'],
    ['an input that is not locked', { root: { inputs: { a: 'a' } }, a: path({}) }, 'audit'],
    [
      'a relative path without parent',
      { root: { inputs: { a: 'a' } }, a: path({ locked: { type: 'path', path: './a' } }) },
      'audit',
    ],
    [
      'an attribute that is null',
      { root: { inputs: { a: 'a' } }, a: path({ locked: { type: 'path', path: null } }) },
      'FLAKE_LOCK_NODE',
    ],
  ])('with %s is refused by Nix and by us', (name, nodes, code) => {
    const directory = flake(name.replaceAll(' ', '-'), `inputs.a.url = "path:/var/empty"; ${EMPTY}`)
    const text = lockText(nodes)
    writeFileSync(join(directory, 'flake.lock'), text)
    expect(() => flakes('flake', 'metadata', '--no-update-lock-file', `path:${directory}`)).toThrow(
      /lock|missing|unsupported/,
    )
    if (code === 'audit')
      expect(auditFlakeLock(parseFlakeLock(text))).toContainEqual(
        expect.objectContaining({ severity: 'error' }),
      )
    else expect(() => parseFlakeLock(text)).toThrow(expect.objectContaining({ code }))
  })
})
