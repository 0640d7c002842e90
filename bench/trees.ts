// A closure as large as a real system, made with `nix-store --add` from what the machine has: the trees
// below /usr and our own node_modules, and where they are not enough the same again under other names.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { basename, join } from 'node:path'
import {
  buildManifest,
  NIX_DATABASE_FILE,
  openNixDatabase,
  parseStorePath,
  type ClosureManifest,
} from '@bagcheck/nix'
import { effort } from './budget.ts'

const TARGET_FILES = effort(140_000, 5_000)
const TARGET_BYTES = effort(4e9, 50e6)
const MIN_FILES = 100
const MAX_COPIES = 20

/** The environment of the Nix commands of this benchmark; the caller is in a `/nix` of its own. */
export const NIX_ENVIRONMENT: NodeJS.ProcessEnv = {
  ...process.env,
  NIX_REMOTE: '',
  NIX_CONFIG: [
    'experimental-features = nix-command',
    'build-users-group =',
    'substitute = false',
    'sandbox-paths = /bin/sh=/bin/busybox',
  ].join('\n'),
}

/** Runs a Nix command and returns what it printed. */
export function nix(command: string, ...args: readonly string[]): string {
  const result = spawnSync(command, args, { env: NIX_ENVIRONMENT, encoding: 'utf8' })
  if (result.status !== 0) throw new Error(`${command} ${args[0]}: ${result.stderr}`)
  return result.stdout.trim()
}

interface Size {
  files: number
  bytes: number
}

/** One closure: a root that refers to every added tree, so that all peers check the same paths. */
export async function addTrees(): Promise<ClosureManifest> {
  const added: string[] = []
  const sum: Size = { files: 0, bytes: 0 }
  const trees = findTrees()
  const enough = (): boolean => sum.files >= TARGET_FILES && sum.bytes >= TARGET_BYTES
  for (let copy = 1; copy <= MAX_COPIES && !enough(); copy++)
    // The smallest first of what is needed twice: the target is not to be left far behind.
    for (const { directory, size } of copy === 1 ? trees : trees.toReversed()) {
      if (enough()) break
      const path = copy === 1 ? add(directory) : addCopy(directory, copy)
      if (path === undefined) continue
      added.push(path)
      sum.files += size.files
      sum.bytes += size.bytes
    }
  const list = added.map((path) => `(builtins.storePath ${path})`).join(' ')
  const expression = `derivation { name = "trees"; system = builtins.currentSystem; builder = "/bin/sh";
    args = [ "-c" "echo $trees > $out" ]; trees = [ ${list} ]; }`
  const root = parseStorePath(nix('nix-build', '--no-out-link', '-E', expression))
  const database = openNixDatabase(NIX_DATABASE_FILE)
  const manifest = buildManifest(root, database.readClosure(root))
  await database.close()
  return manifest
}

/** Trees that can be added, each apart from the others, largest first. */
function findTrees(): { directory: string; size: Size }[] {
  const below = (parent: string): string[] =>
    existsSync(parent)
      ? readdirSync(parent, { withFileTypes: true })
          .filter((entry) => entry.isDirectory())
          .map((entry) => join(parent, entry.name))
      : []
  const directories =
    TARGET_FILES < MIN_FILES * 100
      ? ['node_modules']
      : [
          'node_modules',
          ...below('/usr').filter((name) => name !== '/usr/lib'),
          ...below('/usr/lib'),
        ]
  return directories
    .map((directory) => ({ directory, size: sizeOf(directory) }))
    .filter(({ size }) => size.files >= MIN_FILES)
    .toSorted((a, b) => b.size.files - a.size.files)
}

/** Adds a tree; `undefined` where it holds what no store can, such as a socket or a name with a blank. */
function add(directory: string): string | undefined {
  try {
    return nix('nix-store', '--add', directory)
  } catch (error) {
    console.warn(`left out: ${(error as Error).message.trim()}`)
    return undefined
  }
}

/** As {@link add}, under another name: `nix-store` takes the name of what it is given. */
function addCopy(directory: string, copy: number): string | undefined {
  const scratch = mkdtempSync('/var/tmp/bagcheck-trees-')
  const mounted = join(scratch, `${basename(directory)}-${copy}`)
  mkdirSync(mounted)
  nix('mount', '--bind', directory, mounted)
  try {
    return add(mounted)
  } finally {
    nix('umount', mounted)
    rmSync(scratch, { recursive: true })
  }
}

// Node's recursive readdir follows links, and a machine may have one that leads to its own parent.
function sizeOf(directory: string): Size {
  const size: Size = { files: 0, bytes: 0 }
  const left = [directory]
  for (let next = left.pop(); next !== undefined; next = left.pop())
    for (const entry of readdirSync(next, { withFileTypes: true })) {
      const path = join(next, entry.name)
      if (entry.isDirectory()) left.push(path)
      if (!entry.isFile()) continue
      size.files++
      size.bytes += statSync(path).size
    }
  return size
}
