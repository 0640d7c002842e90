// SPIFFE clients of others, built from their published packages: what each needs, and where it lands. Nothing
// of it is committed but our small programs; what was built stays in a cache folder that may be deleted.
import { spawnSync } from 'node:child_process'
import { cpSync, globSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { basename, delimiter, join } from 'node:path'
import { sha256Hex } from '@bagcheck/nix'
import { cached, runTool } from '@bagcheck/testkit'
import { copyWhole, findJdk } from '../attacks/services.ts'

const here = import.meta.dirname
const SPIRE = 'v1.15.3'
const PY_SPIFFE = '0.3.2'
const PYTHON = '/usr/bin/python3.11'

const environment = {
  ...process.env,
  PATH: [process.env['PATH'], '/usr/local/go/bin', join(homedir(), '.cargo/bin')].join(delimiter),
}

/** A program of one file, or undefined with the reason printed. */
export const goProgram = (): Promise<string | undefined> =>
  built('go-spiffe', 'go', async (folder) => {
    cpSync(join(here, 'go'), folder, { recursive: true })
    await run(folder, 'go', ['build', '-trimpath', '-o', 'program', '.'], { CGO_ENABLED: '0' })
    return 'program'
  })

export const spireAgent = (): Promise<string | undefined> =>
  built(`spire-agent-${SPIRE}`, undefined, async (folder) => {
    const path = 'github.com/spiffe/spire/cmd/spire-agent'
    await run(folder, 'go', ['mod', 'init', 'peer'])
    await run(folder, 'go', ['get', `${path}@${SPIRE}`])
    const args = ['build', '-trimpath', '-o', 'spire-agent', path]
    await run(folder, 'go', args, { CGO_ENABLED: '0' })
    return 'spire-agent'
  })

export const rustProgram = (): Promise<string | undefined> =>
  built('rust-spiffe', 'rust', async (folder) => {
    cpSync(join(here, 'rust'), folder, { recursive: true })
    const target = `${process.arch === 'x64' ? 'x86_64' : 'aarch64'}-unknown-linux-gnu`
    const args = ['build', '--locked', '--target', target]
    await run(folder, 'cargo', args, { RUSTFLAGS: '-C target-feature=+crt-static' })
    return `target/${target}/debug/spiffe-interop`
  })

/** A folder for the library path of a Python: its own modules, and py-spiffe with our program. */
export const pythonFolder = (): Promise<string | undefined> =>
  built(`py-spiffe-${PY_SPIFFE}`, 'client.py', async (folder) => {
    const lib = join(folder, 'lib')
    mkdirSync(lib)
    const args = ['-m', 'pip', 'install', '--quiet', '--target', lib, `spiffe==${PY_SPIFFE}`]
    await run(folder, PYTHON, args)
    copyWhole('/usr/lib/python3.11', join(lib, 'python3.11'), /^$/)
    cpSync(join(here, 'client.py'), join(lib, 'client.py'))
    writeFileSync(join(lib, 'note.json'), '{"note":"first"}')
    return 'lib'
  })

/** A folder with `client.jar`, what it needs beside it, and in `native` what that would unpack when it runs. */
export const javaFolder = (): Promise<string | undefined> =>
  built('java-spiffe', 'java', async (folder) => {
    const jdk = findJdk()
    if (jdk === undefined) throw new Error('no JDK of Debian is installed')
    const lib = join(folder, 'lib')
    cpSync(join(here, 'java'), folder, { recursive: true })
    const output = ['-DincludeScope=runtime', `-DoutputDirectory=${lib}`]
    // What a registry did not have yesterday it may have today.
    const quiet = ['--batch-mode', '--quiet', '--update-snapshots']
    await run(folder, 'mvn', [...quiet, 'dependency:copy-dependencies', ...output])
    compareArtifacts(lib, join(folder, 'artifacts.sha256'))
    const jars = readdirSync(lib)
    const tool = (name: string): string => join(jdk, 'bin', name)
    const classPath = jars.map((jar) => join(lib, jar)).join(delimiter)
    await run(folder, tool('javac'), ['-cp', classPath, '-d', 'classes', 'Client.java'])
    // Lines of a manifest are short, and go on behind a space.
    writeFileSync(
      join(folder, 'manifest'),
      `Class-Path: ${jars.join(' \n  ')}\nMain-Class: Client\n`,
    )
    const content = ['--manifest', 'manifest', '-C', 'classes', '.']
    await run(folder, tool('jar'), ['--create', '--file', join(lib, 'client.jar'), ...content])
    const transport = join(lib, jars.find((jar) => jar.startsWith('grpc-netty-shaded-')) ?? '')
    await run(folder, tool('jar'), ['--extract', '--file', transport, 'META-INF/native'])
    const architecture = process.arch === 'x64' ? 'x86_64' : 'aarch_64'
    const [epoll = ''] = globSync(`META-INF/native/*_epoll_${architecture}.so`, { cwd: folder })
    cpSync(join(folder, epoll), join(lib, 'native', basename(epoll)))
    return 'lib'
  })

/** Maven has no lockfile: what came must be what was looked at, all of it and nothing else. */
function compareArtifacts(folder: string, list: string): void {
  const seen = readdirSync(folder)
    .toSorted()
    .map((name) => `${sha256Hex(readFileSync(join(folder, name)))}  ${name}\n`)
  const expected = readFileSync(list, 'utf8')
  if (seen.join('') !== expected) {
    const others = seen.filter((line) => !expected.includes(line)).map((line) => line.trim())
    throw new Error(`Maven brought other files than artifacts.sha256 lists: ${others.join(', ')}`)
  }
}

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

/**
 * Builds once for each version of `ours`, a file or a folder beside this one; `make` returns what it made, relative
 * to its folder.
 */
async function built(
  name: string,
  ours: string | undefined,
  make: (folder: string) => Promise<string>,
): Promise<string | undefined> {
  try {
    if (process.env['BAGCHECK_INTEROP'] !== '1') throw new Error('BAGCHECK_INTEROP=1 is not set')
    const version = ours === undefined ? '' : `-${digestOf(join(here, ours)).slice(0, 12)}`
    return await cached(`${name}${version}`, make)
  } catch (error) {
    console.warn(`tests with ${name} are skipped: ${(error as Error).message}`)
    return undefined
  }
}

/** Of all files in a folder, or of one. */
function digestOf(path: string): string {
  const files = globSync(`${path}{,/**}`, { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
  return sha256Hex(
    files
      .toSorted()
      .map((file) => sha256Hex(readFileSync(file)))
      .join('\n'),
  )
}

function run(
  cwd: string,
  command: string,
  args: readonly string[],
  extra: NodeJS.ProcessEnv = {},
): Promise<string> {
  return runTool(command, args, { cwd, env: { ...environment, ...extra } })
}
