// SPIFFE clients of others, built from their published packages: what each needs, and where it lands. Nothing
// of it is committed but our small programs; what was built stays in a cache folder that may be deleted.
import { execFileSync, spawnSync } from 'node:child_process'
import {
  cpSync,
  existsSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  renameSync,
  rmSync,
} from 'node:fs'
import { homedir } from 'node:os'
import { delimiter, join } from 'node:path'

const here = import.meta.dirname
const SPIRE = 'v1.15.3'
const PY_SPIFFE = '0.3.2'
const PYTHON = '/usr/bin/python3.11'

const environment = {
  ...process.env,
  PATH: [process.env['PATH'], '/usr/local/go/bin', join(homedir(), '.cargo/bin')].join(delimiter),
}

/** A program of one file, or undefined with the reason printed. */
export const goProgram = (): string | undefined =>
  built('go-spiffe', 'go', (folder) => {
    cpSync(join(here, 'go'), folder, { recursive: true })
    run(folder, 'go', ['build', '-trimpath', '-o', 'program', '.'], { CGO_ENABLED: '0' })
    return 'program'
  })

export const spireAgent = (): string | undefined =>
  built(`spire-agent-${SPIRE}`, 'go', (folder) => {
    const path = 'github.com/spiffe/spire/cmd/spire-agent'
    run(folder, 'go', ['mod', 'init', 'peer'])
    run(folder, 'go', ['get', `${path}@${SPIRE}`])
    run(folder, 'go', ['build', '-trimpath', '-o', 'spire-agent', path], { CGO_ENABLED: '0' })
    return 'spire-agent'
  })

export const rustProgram = (): string | undefined =>
  built('rust-spiffe', 'cargo', (folder) => {
    cpSync(join(here, 'rust'), folder, { recursive: true })
    const target = `${process.arch === 'x64' ? 'x86_64' : 'aarch64'}-unknown-linux-gnu`
    const args = ['build', '--locked', '--release', '--target', target]
    run(folder, 'cargo', args, { RUSTFLAGS: '-C target-feature=+crt-static' })
    return `target/${target}/release/spiffe-interop`
  })

/** A folder for the library path of a Python: its own modules, and py-spiffe with our program. */
export const pythonFolder = (): string | undefined =>
  built(`py-spiffe-${PY_SPIFFE}`, PYTHON, (folder) => {
    const lib = join(folder, 'lib')
    mkdirSync(lib)
    const args = ['-m', 'pip', 'install', '--quiet', '--target', lib, `spiffe==${PY_SPIFFE}`]
    run(folder, 'python3.11', args)
    cpSync('/usr/lib/python3.11', join(lib, 'python3.11'), { recursive: true, dereference: true })
    cpSync(join(here, 'client.py'), join(lib, 'client.py'))
    return 'lib'
  })

/** The Python that {@link pythonFolder} is for, and every library that it or a module of it loads. */
export function pythonLinkage(folder: string): {
  program: string
  loader: string
  libraries: string[]
} {
  const modules = readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.so(\.[0-9.]+)?$/.test(name))
    .map((name) => join(folder, name))
  // Modules of the host's name service, which the C library loads into whoever asks for a user or a host.
  const services = globSync(
    `/usr/lib/${process.arch === 'x64' ? 'x86_64' : 'aarch64'}-linux-gnu/libnss_*.so.2`,
  )
  const found = new Set<string>(services)
  let loader = ''
  for (const file of [PYTHON, ...modules, ...services]) {
    const { stdout } = spawnSync('ldd', [file], { encoding: 'utf8' })
    for (const line of stdout.split('\n')) {
      const library = /^\s*\S+ => (\/\S+) \(/.exec(line)?.[1]
      const interpreter = /^\s*(\/\S+) \(/.exec(line)?.[1]
      if (library !== undefined && !library.startsWith(folder)) found.add(library)
      else if (interpreter !== undefined) loader = interpreter
    }
  }
  return { program: PYTHON, loader, libraries: [...found] }
}

/** Builds once; `make` returns what it made, relative to its folder. */
function built(name: string, tool: string, make: (folder: string) => string): string | undefined {
  const cache = process.env['BAGCHECK_CACHE'] ?? process.env['XDG_CACHE_HOME'] ?? '/var/cache'
  const parent = join(cache, 'bagcheck/spiffe-clients')
  const target = join(parent, name)
  try {
    if (process.env['BAGCHECK_INTEROP'] !== '1') throw new Error('BAGCHECK_INTEROP=1 is not set')
    if (!existsSync(target)) {
      const { error } = spawnSync(tool, ['--version'], { env: environment })
      if (error !== undefined) throw new Error(`${tool} is not installed`)
      mkdirSync(parent, { recursive: true })
      const folder = mkdtempSync(join(parent, '.new-'))
      try {
        const made = make(folder)
        renameSync(join(folder, made), target)
      } finally {
        rmSync(folder, { recursive: true, force: true })
      }
    }
    return target
  } catch (error) {
    console.warn(`tests with ${name} are skipped: ${(error as Error).message}`)
    return undefined
  }
}

function run(
  cwd: string,
  command: string,
  args: readonly string[],
  extra: NodeJS.ProcessEnv = {},
): void {
  execFileSync(command, args, {
    cwd,
    env: { ...environment, ...extra },
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: 1_200_000,
    maxBuffer: 1 << 26,
  })
}
