// The difference of two closures of 10,000 paths, and the reference chains in one: in process, and as
// commands against `nix store diff-closures` and `nix why-depends` on the same paths, interleaved. The paths
// exist in the Nix database only; none of these tools reads content.
import { spawnSync } from 'node:child_process'
import { hash } from 'node:crypto'
import { rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  buildManifest,
  diffClosures,
  narHashDigest,
  narHashFromDigest,
  parseManifest,
  referenceChains,
  shortestChain,
  type ClosureManifest,
  type PathInfo,
  type StorePath,
} from '@bagcheck/nix'
import { effort, format } from './budget.ts'
import { storePath } from './closures.ts'
import { packedCommand } from './packed.ts'
import { makeScratch } from './scratch.ts'
import { median, printTable } from './statistics.ts'

const PATHS = 10_000
const CHANGED_EVERY = 40
const ROUNDS = effort(15, 2)

/** A system whose packages refer to earlier ones; a new build changes some, and rebuilds what uses them. */
function makeSystem(build: number): ClosureManifest {
  const infos: PathInfo[] = []
  const builds: number[] = []
  for (let index = 0; index < PATHS; index++) {
    const digest = Buffer.from(hash('sha256', `references of ${index}`), 'hex')
    const below = Array.from({ length: 10 }, (_, n) => digest.readUInt16BE(n * 2))
      .filter(() => index > 0)
      .map((random) => Math.max(0, index - 1 - (random % Math.min(index, 400))))
    const references = [...new Set(index === PATHS - 1 ? infos.keys() : below)]
    const changed = index % CHANGED_EVERY === 0 && index > PATHS / 2
    const own = changed || references.some((at) => builds[at] !== 0) ? build : 0
    builds.push(own)
    const version = changed ? `1.${build}` : '1.0'
    infos.push({
      path: storePath(`package${index}x-${version}${own === 0 || changed ? '' : `+${own}`}`),
      narHash: narHashFromDigest(Buffer.from(hash('sha256', `${index} ${own}`), 'hex')),
      narSize: 1000 + digest.readUInt32BE(20) / 1000,
      references: references.map((at) => (infos[at] as PathInfo).path),
    })
  }
  const whole = infos.map((info) => ({ ...info, narSize: Math.floor(info.narSize) }))
  return buildManifest((whole.at(-1) as PathInfo).path, whole)
}

const nixEnvironment = {
  ...process.env,
  NIX_REMOTE: '',
  NIX_CONFIG: 'experimental-features = nix-command\nbuild-users-group =\nsubstitute = false',
}

function start(command: readonly string[], input?: string): string {
  const [program = '', ...args] = command
  const options = { env: nixEnvironment, encoding: 'utf8', maxBuffer: 1 << 28, input } as const
  const { status, stdout, stderr } = spawnSync(program, args, options)
  if (status !== 0) throw new Error(`${program} ${args.slice(0, 2).join(' ')}: ${stderr}`)
  return stdout
}

/** Makes Nix take the paths for valid. */
function register({ entries }: ClosureManifest): void {
  const lines = entries.map(({ path, narHash, narSize, references }) => {
    writeFileSync(path, '')
    const base16 = Buffer.from(narHashDigest(narHash)).toString('hex')
    return [path, base16, narSize, '', references.length, ...references].join('\n')
  })
  start(['nix-store', '--load-db'], `${lines.join('\n')}\n`)
}

/** Milliseconds of each of `ROUNDS` calls. */
function times(work: () => unknown): number[] {
  return Array.from({ length: ROUNDS }, () => time(work))
}

/** Prints the tables. */
export async function run(): Promise<void> {
  const [before, after] = [makeSystem(1), makeSystem(2)]
  const deep = before.entries.find(({ path }) => path.includes('-package0x-'))?.path as StorePath
  const texts = [before, after].map(({ text }) => Buffer.from(text))
  const diff = diffClosures(before, after)
  console.log(
    `closures: ${before.entries.length} paths and ${(before.text.length / 1e6).toFixed(1)} MB each; ` +
      `${diff.pathsAdded} added, ${diff.pathsRemoved} removed, ${diff.packages.length} packages changed`,
  )
  const inProcess: [string, () => unknown][] = [
    ['parse both manifests', () => texts.map(parseManifest)],
    ['diffClosures', () => diffClosures(before, after).packages.length],
    ['shortestChain', () => shortestChain(before, deep)?.length],
    ['referenceChains, 100', () => referenceChains(before, deep).chains.length],
    [
      'referenceChains, 10,000',
      () => referenceChains(before, deep, { maxChains: 10_000 }).chains.length,
    ],
  ]
  printTable(
    ['in process', 'p50 ms'],
    inProcess.map(([name, work]) => [name, format(median(times(work)))]),
  )

  if (spawnSync('nix-store', ['--version']).status !== 0 || process.getuid?.() !== 0) {
    console.log('without Nix and root there is no peer: the commands are not compared')
    return
  }
  const directory = makeScratch()
  try {
    for (const system of [before, after]) register(system)
    const manifests = texts.map((text, index) => {
      const file = join(directory, `${index}.manifest`)
      writeFileSync(file, text)
      return file
    })
    const bagcheck = packedCommand('bagcheck')
    const database = ['--source', 'database', '--database', '/nix/var/nix/db/db.sqlite']
    const peers = {
      diff: ['nix', 'store', 'diff-closures', before.root, after.root],
      why: ['nix', 'why-depends', before.root, deep],
    }
    const pairs: [string, readonly string[], readonly string[]][] = [
      [
        'closure diff, database',
        [...bagcheck, 'closure', 'diff', before.root, after.root, ...database],
        peers.diff,
      ],
      ['closure diff, manifests', [...bagcheck, 'closure', 'diff', ...manifests], peers.diff],
      [
        'closure why, database',
        [...bagcheck, 'closure', 'why', before.root, deep, ...database],
        peers.why,
      ],
    ]
    const rows = pairs.map(([name, ours, theirs]) => {
      const both = Array.from({ length: ROUNDS + 1 }, () => [
        time(() => start(ours)),
        time(() => start(theirs)),
      ]).slice(1) // the first pair warms the page cache for both
      const column = (index: number): number[] => both.map((pair) => pair[index] ?? Number.NaN)
      const ratios = both.map(([mine = 0, peer = Number.NaN]) => mine / peer)
      return [name, ...[median(column(0)), median(column(1)), median(ratios)].map(format)]
    })
    printTable(['command', 'ms', 'Nix ms', 'ratio'], rows)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

function time(work: () => unknown): number {
  const start = performance.now()
  work()
  return performance.now() - start
}
