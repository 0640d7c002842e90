// Closures that real Nix built: what we say of them against what Nix says.
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { nixAvailable, nixBuild, runNix, shellDerivation, startNixDaemon } from '@bagcheck/testkit'
import type { TestNixDaemon } from '@bagcheck/testkit'
import type { ClosureDiff, StorePath } from '@bagcheck/nix'
import { run } from './transcript.ts'

/** A library, a tool that uses it by two ways, and a root, with some things changed. */
function system(change: {
  version: string
  note: string
  library: string
  extra: boolean
}): string {
  const { version, note, library: content, extra } = change
  const library = shellDerivation(
    'library-1.0',
    `mkdir -p $out/lib; echo ${content} > $out/lib/data; echo $out > $out/self`,
  )
  const config = shellDerivation(
    'config',
    `mkdir $out; ln -s $library/lib $out/lib; echo ${note} > $out/note`,
    {
      library,
    },
  )
  const tool = shellDerivation(
    `tool-${version}`,
    `mkdir -p $out/bin; echo "#! $library/lib/data" > $out/bin/tool; : > $out/bin/$(basename $config)
     echo $config > $out/config; head -c ${extra ? 90000 : 70000} /dev/zero > $out/zeros`,
    { library, config },
  )
  const interactive = shellDerivation('shell-interactive', 'echo $library > $out', { library })
  const added = shellDerivation('added-2.0-unstable', 'head -c 20000 /dev/zero > $out')
  return shellDerivation(
    'root',
    'mkdir $out; echo $library $tool $interactive $added > $out/refs',
    {
      library,
      tool,
      interactive,
      ...(extra ? { added } : {}),
    },
  )
}

describe.runIf(nixAvailable())('closures of real Nix', () => {
  let scratch: string
  let daemon: TestNixDaemon
  let env: Record<string, string>
  let before: StorePath
  let after: StorePath

  const nix = (...args: string[]): string =>
    // oxlint-disable-next-line no-control-regex
    runNix('nix', ['--extra-experimental-features', 'nix-command', ...args]).replaceAll(
      /\x1b\[[0-9;]*m/g,
      '',
    )

  beforeAll(async () => {
    scratch = mkdtempSync('/var/tmp/bagcheck-closure-test-')
    daemon = await startNixDaemon(scratch)
    env = { NIX_DAEMON_SOCKET_PATH: daemon.socketPath }
    before = nixBuild(system({ version: '1.9', note: 'one', library: 'data', extra: false }))
    after = nixBuild(system({ version: '1.10', note: 'two', library: 'data', extra: true }))
  })
  afterAll(async () => {
    await daemon.stop()
    rmSync(scratch, { recursive: true })
  })

  const diffOf = async (...args: string[]): Promise<ClosureDiff> => {
    const { code, stdout, stderr } = await run(['closure', 'diff', '--json', ...args], env)
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    return JSON.parse(stdout) as ClosureDiff
  }

  const pathsOf = (root: StorePath): string[] =>
    runNix('nix-store', ['-qR', root]).trim().split('\n')

  const narSizes = (root: StorePath): number =>
    pathsOf(root)
      .map((path) => Number(runNix('nix-store', ['-q', '--size', path])))
      .reduce((sum, size) => sum + size, 0)

  test('differ in all that nix store diff-closures shows, and in what it hides', async () => {
    const diff = await diffOf(before, after)
    const theirs = nix('store', 'diff-closures', before, after).trim().split('\n')
    // Nix takes "unstable" for an output.
    expect(theirs).toContainEqual(expect.stringMatching(/^added: ∅ → 2\.0, /))
    for (const line of theirs) {
      const [, pname, , gone = '', come = '', kib = ''] =
        /^([^:]+): ((\S+) → (\S+))?(?:, )?(?:([+-][0-9.]+) KiB)?$/.exec(line) ?? []
      const ours = diff.packages.find((entry) => entry.pname === pname)
      expect([line, ours && (ours.narBytesDelta / 1024).toFixed(1)]).toEqual([
        line,
        kib.replace('+', ''),
      ])
      const lost = ours?.versionsBefore.filter((version) => !ours.versionsAfter.includes(version))
      const won = ours?.versionsAfter.filter((version) => !ours.versionsBefore.includes(version))
      expect([lost, won?.map((version) => version.replace('-unstable', ''))]).toEqual([
        gone === '∅' ? [] : [gone],
        come === '∅' ? [] : [come],
      ])
    }
    expect(diff.packages.map(({ pname, change, identity }) => [pname, change, identity])).toEqual([
      ['added', 'added', 'drv'],
      ['tool', 'version', 'drv'],
      ['config', 'content', 'drv'],
      ['root', 'content', 'drv'],
    ])
    expect(theirs.join('\n')).not.toMatch(/config|root/)
    expect(diff.narBytesDelta).toBe(narSizes(after) - narSizes(before))
    expect(diff).toMatchObject({ pathsAdded: 4, pathsRemoved: 3, pathsKept: 2, pathsAltered: 0 })
  })

  test('are the same from the daemon, the database, a link and a manifest', async () => {
    const [link, file] = [join(scratch, 'result'), join(scratch, 'after.manifest')]
    symlinkSync(after, link)
    const { code } = await run(['closure', 'manifest', after, '--output', file], env)
    expect(code).toBe(0)
    const linked = await run(['closure', 'manifest', link], env)
    expect(linked).toEqual(await run(['closure', 'manifest', after], env))
    expect((await run(['closure', 'verify', link], env)).stdout).toContain(`${after}: 6 paths as`)
    expect((await run(['closure', 'verify', `${link}/x`], env)).code).toBe(2)
    const expected = await diffOf(before, after, '--names')
    expect(expected.packages.every(({ identity }) => identity === 'name')).toBe(true)
    expect(await diffOf(before, link, '--names', '--source', 'database')).toEqual(expected)
    expect(await diffOf(before, file, '--names')).toEqual(expected)
  })

  test('with one path of two contents exit with 1', async () => {
    const random = shellDerivation('random', 'cat /proc/sys/kernel/random/uuid > $out')
    const path = nixBuild(random)
    const file = join(scratch, 'random.manifest')
    expect(await run(['closure', 'manifest', path, '--output', file], env)).toMatchObject({
      code: 0,
    })
    runNix('nix-store', ['--delete', path])
    expect(nixBuild(random)).toBe(path)
    const { code, stdout } = await run(['closure', 'diff', file, path], env)
    expect(code).toBe(1)
    expect(stdout).toMatch(/^altered {2}random .*the same store path, another content$/m)
  })

  /** The edges of a tree as `nix why-depends --all` draws it. */
  const edgesOfTree = (text: string): Set<string> => {
    const edges = new Set<string>()
    const above: string[] = []
    for (const line of text.trim().split('\n')) {
      const start = line.indexOf('/nix/store/')
      const depth = start / 4
      const path = line.slice(start)
      if (depth > 0) edges.add(`${above[depth - 1]} ${path}`)
      above[depth] = path
    }
    return edges
  }

  interface Why {
    chains: {
      paths: string[]
      links: { from: string; to: string; holders: { file: string; in: string; offset: number }[] }[]
    }[]
    complete: boolean
  }
  const whyOf = async (...args: string[]): Promise<Why> =>
    JSON.parse((await run(['closure', 'why', '--json', ...args], env)).stdout) as Why

  test('hold every path by the chains that nix why-depends draws', async () => {
    for (const path of pathsOf(after).filter((one) => one !== after)) {
      const { chains, complete } = await whyOf('--all', after, path)
      expect(complete).toBe(true)
      const edges = chains.flatMap(({ links }) => links.map(({ from, to }) => `${from} ${to}`))
      expect(new Set(edges)).toEqual(edgesOfTree(nix('why-depends', '--all', after, path)))
      const shortest = nix('why-depends', after, path).trim().split('\n')
      expect(chains[0]?.paths).toHaveLength(shortest.length)
      expect((await whyOf(after, path)).chains[0]?.paths).toEqual(chains[0]?.paths)
    }
  })

  test('hold references in the files that nix why-depends names, and in names, which it leaves out', async () => {
    const library = pathsOf(before).find((path) => path.endsWith('-library-1.0')) ?? ''
    const { chains } = await whyOf('--all', '--files', before, library)
    const files = chains.flatMap(({ links }) =>
      links.flatMap(({ to, holders }) =>
        holders.map((holder) => `${to.slice(44)} ${holder.in} ${holder.file || '/'}`),
      ),
    )
    expect([...new Set(files)].sort()).toEqual([
      'config contents config',
      expect.stringMatching(/^config name bin\/[0-9a-z]{32}-config$/),
      'library-1.0 contents /',
      'library-1.0 contents bin/tool',
      'library-1.0 contents refs',
      'library-1.0 target lib',
      'shell-interactive contents refs',
      'tool-1.9 contents refs',
    ])
    const theirs = nix('why-depends', '--all', '--precise', before, library)
    const named = [...theirs.matchAll(/[├└]───(\S+?)(?:: …| -> )/g)].map(([, file]) => file)
    for (const file of files.filter((one) => !one.includes(' name ')))
      expect(named).toContain(file.split(' ')[2])
  })

  test('answer to a name, to a file inside a path, and say no to what they do not hold', async () => {
    const short = await run(['closure', 'why', before, 'library-1.0'], env)
    expect(short).toMatchObject({ code: 0 })
    const library = pathsOf(before).find((path) => path.endsWith('-library-1.0')) ?? ''
    expect(await run(['closure', 'why', before, `${library}/lib/data`], env)).toEqual(short)
    const other = await run(['closure', 'why', '--json', before, after], env)
    expect(other.code).toBe(1)
    expect(JSON.parse(other.stdout)).toMatchObject({ reached: false, chains: [] })
  })
})
