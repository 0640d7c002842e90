// What opt-in tests download and build once: programs of others that we do not ship and never require. It lands in
// a cache folder (BAGCHECK_CACHE, XDG_CACHE_HOME or /var/cache) that may be deleted at will. A thing appears there
// under its name when it is complete, so that an interrupted run leaves nothing that looks like it.
import { execFile } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'

const SCRATCH = '.new-'
/** Longer than any one tool may run; whoever made an older scratch folder was killed. */
const STALE_MS = 7_200_000
const TOOL_TIMEOUT_MS = 1_800_000

/**
 * The path of `name` in the cache, a file or a folder. If it is not there, `make` makes it in a folder of its own
 * and returns its path relative to that.
 */
export async function cached(
  name: string,
  make: (folder: string) => Promise<string>,
): Promise<string> {
  const root = process.env['BAGCHECK_CACHE'] ?? process.env['XDG_CACHE_HOME'] ?? '/var/cache'
  const parent = join(root, 'bagcheck')
  const target = join(parent, name)
  if (existsSync(target)) return target
  mkdirSync(parent, { recursive: true })
  removeStale(parent)
  const folder = mkdtempSync(join(parent, SCRATCH))
  const started = Date.now()
  const elapsed = (): string => `${Math.round((Date.now() - started) / 1000)} s`
  say(`${name}: is not in ${parent}, and is downloaded and built`)
  const timer = setInterval(() => say(`${name}: still at it after ${elapsed()}`), 30_000)
  try {
    const made = join(folder, await make(folder))
    try {
      renameSync(made, target)
    } catch (error) {
      // Another run was faster.
      if (!existsSync(target)) throw error
    }
    say(`${name}: took ${elapsed()}`)
    return target
  } finally {
    clearInterval(timer)
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Runs a tool to its end and returns its standard output; what it complained of last is in the error. */
export function runTool(
  command: string,
  args: readonly string[],
  options: { readonly cwd?: string; readonly env?: NodeJS.ProcessEnv } = {},
): Promise<string> {
  return new Promise((resolve, reject) => {
    const limits = { timeout: TOOL_TIMEOUT_MS, maxBuffer: 1 << 28 }
    execFile(command, args, { ...options, ...limits }, (error, stdout, stderr) => {
      if (error === null) return resolve(stdout)
      if (error.code === 'ENOENT') return reject(new Error(`${command} is not installed`))
      // Maven complains on standard output.
      const complaints = (stderr.trim() || stdout.trim()).split('\n').slice(-5).join(' ')
      reject(new Error(`${command} ended with ${error.code ?? error.signal}: ${complaints}`))
    }).stdin?.end()
  })
}

function removeStale(parent: string): void {
  for (const entry of readdirSync(parent)) {
    const folder = join(parent, entry)
    const isStale = (): boolean => Date.now() - statSync(folder).mtimeMs > STALE_MS
    if (entry.startsWith(SCRATCH) && isStale()) rmSync(folder, { recursive: true, force: true })
  }
}

/** At once: what is printed by the console waits in a test runner until a test ends. */
function say(text: string): void {
  writeSync(2, `${text}\n`)
}
