// The services of the arena: runtimes of this machine, relinked into the store by a sandboxed build, with a
// script of ours each. Perl is everywhere; what else a machine has is found, and what it lacks is said.
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, globSync, readFileSync, realpathSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { parseStorePath, sha256Hex, type StorePath } from '@bagcheck/nix'
import { runNix } from '@bagcheck/testkit'
import {
  findCommand,
  linkage,
  named,
  nixEnvironment,
  type NamedFile,
} from '../../src/demo/build.ts'

/** A runtime and what it is told to run. */
export interface ServicePlan {
  /** Of the role, the unit and the store path. */
  readonly name: string
  readonly uid: number
  readonly script: string
  /** Before the script. */
  readonly options: readonly string[]
  /** Runtimes that make code need an allowance. */
  readonly jit?: { readonly maxRegions: number; readonly maxBytes: number }
  readonly runtime: {
    readonly name: string
    readonly program: string
    /** Copied beside its libraries. */
    readonly data?: string
    /** Copied to `conf`. */
    readonly settings?: string
    /** What it loads later on, whose libraries it needs too. */
    readonly plugins?: readonly string[]
  }
}

/** A service that was built. */
export interface Service extends ServicePlan {
  readonly root: StorePath
  /** Links resolved. */
  readonly executable: string
  readonly scriptPath: string
}

/** Builds services; Nix's daemon must run. Inputs are listed in a file in `scratch`. */
export async function buildServices(
  plans: readonly ServicePlan[],
  scratch: string,
): Promise<Service[]> {
  const [patchelf, busybox] = [await needCommand('patchelf'), await needCommand('busybox')]
  const config = join(scratch, 'services.json')
  const services = await Promise.all(
    plans.map(async ({ name, script, runtime }) => ({
      name,
      script: named(script),
      runtime: {
        name: `demo-${runtime.name}`,
        version: '1',
        program: named(runtime.program),
        ...(await linkageOfAll(runtime.program, runtime.plugins ?? [])),
        ...(runtime.data !== undefined && { data: runtime.data }),
        ...(runtime.settings !== undefined && { settings: runtime.settings }),
      },
    })),
  )
  const tools = { busybox: named(busybox), patchelf: named(patchelf), ...(await linkage(patchelf)) }
  writeFileSync(config, JSON.stringify({ services, tools }))
  return plans.map((plan) => {
    const file = join(import.meta.dirname, 'runtimes.nix')
    const args = [file, '--argstr', 'config', config, '--no-out-link', '-A', plan.name]
    const root = parseStorePath(runNix('nix-build', args, nixEnvironment()).trim())
    const executable = realpathSync(join(root, 'bin', basename(plan.runtime.program)))
    return { ...plan, root, executable, scriptPath: join(root, 'lib', basename(plan.script)) }
  })
}

/** The role of a service, as people write it. */
export function roleText(service: Service, closure: string, audience: string): string {
  const { name, uid, root, options, executable, scriptPath, jit } = service
  const args = [...options, '{script}'].map((argument) => `'${argument}'`)
  const inStore = (file: string): string =>
    file.replace(
      /^\/nix\/store\/[0-9a-z]{32}-[^/]*\//,
      (path) => `${path.slice(44).replace(/-[\d.]+\/$/, '')}-*/`,
    )
  const allowance =
    jit === undefined
      ? ''
      : `
    allow:
      jit:
        - runtime: ${sha256Hex(readFileSync(executable))}
          maxRegions: ${jit.maxRegions}
          maxBytes: ${jit.maxBytes}`
  return `  ${name}:
    nodeClasses: [arena]
    unit: { launcher: bagcheck-exec, name: ${name} }
    uid: ${uid}
    entry:
      kind: interpreter
      executable: '${inStore(executable)}'
      script: '${inStore(scriptPath)}'
      arguments: [${args.join(', ')}]
    audiences:
      ${audience}:
        profile: plain
        ttlSeconds: { min: 5, default: 300, max: 300 }
        minTier: 0
        minStrength: incremental
        maxAgeFullSeconds: 86400
    signers: [ci]
    build: { sandbox: true, sandboxFallback: false, impure: false }${allowance}
    roots:
      - { root: ${root}, closure: ${closure} }
`
}

/** Perl, with the modules that its services need. */
export async function perlRuntime(): Promise<ServicePlan['runtime']> {
  const program = await needCommand('perl')
  const at = runNix(program, ['-MIO::Socket::UNIX', '-e', 'print $INC{"IO/Socket/UNIX.pm"}'])
  return { name: 'perl', program, data: dirname(dirname(dirname(at))) }
}

/** Node as it runs this. */
export const nodeRuntime: ServicePlan['runtime'] = { name: 'node', program: process.execPath }

/** Debian's Python with its library, if it is installed. */
export function pythonRuntime(scratch: string): ServicePlan['runtime'] | undefined {
  const [program] = globSync('/usr/bin/python3.[0-9]*').filter((file) => /\.\d+$/.test(file))
  if (program === undefined) return undefined
  const library = `/usr/lib/${basename(program)}`
  if (!existsSync(join(library, 'socket.py'))) return undefined
  const data = join(scratch, 'python')
  const leftOut = /\/(test|idlelib|tkinter|lib2to3|ensurepip|config-\S*|__pycache__)(\/|$)/
  copyWhole(library, join(data, basename(program)), leftOut)
  return { name: 'python', program, data, plugins: globSync(`${library}/lib-dynload/*.so`) }
}

/** Debian's JDK, if there is one. */
export function findJdk(): string | undefined {
  return globSync('/usr/lib/jvm/java-*-openjdk-*/bin/java')
    .map((file) => dirname(dirname(realpathSync(file))))
    .find((home) => existsSync(join(home, 'bin/javac')))
}

/** A JVM that also compiles, if there is one from Debian. */
export function javaRuntime(scratch: string): ServicePlan['runtime'] | undefined {
  const home = findJdk()
  if (home === undefined) return undefined
  const data = join(scratch, 'java')
  const library = join(home, 'lib')
  copyWhole(library, data, /\/src\.zip$/)
  const settings = join(scratch, 'java-conf')
  copyWhole(join(home, 'conf'), settings, /^$/)
  return {
    name: 'java',
    program: join(home, 'bin/java'),
    data,
    settings,
    plugins: globSync(`${library}/{*.so,server/*.so}`),
  }
}

/**
 * Copies what is there, links followed: a distribution links parts of a runtime to elsewhere. (Without a filter,
 * Node 24 keeps links that lie deeper.)
 */
export function copyWhole(from: string, to: string, leftOut: RegExp): void {
  const filter = (file: string): boolean => !leftOut.test(file) && existsSync(file)
  cpSync(from, to, { recursive: true, dereference: true, filter })
}

/** The loader and the libraries of a program, and the libraries that `plugins` need. */
export async function linkageOfAll(
  program: string,
  plugins: readonly string[],
): Promise<{ loader: NamedFile; libraries: NamedFile[] }> {
  const { loader, libraries } = await linkage(program)
  const all = new Map(libraries.map((library) => [library.name, library]))
  // What plugins need; those that need nothing say so and are no failure. Whoever looks up users also loads what
  // /etc/nsswitch.conf of this machine names, from its own libraries first.
  const nameServices =
    plugins.length === 0 ? [] : globSync('/usr/lib/*-linux-gnu/libnss_systemd.so.2')
  const { stdout } = spawnSync('ldd', [...plugins, ...nameServices], { encoding: 'utf8' })
  for (const [, file = ''] of stdout.matchAll(/ => (\/\S+) \(/g))
    all.set(basename(file), named(file))
  for (const file of nameServices) all.set(basename(file), { ...named(file), name: basename(file) })
  return { loader, libraries: [...all.values()] }
}

async function needCommand(name: string): Promise<string> {
  const file = await findCommand(name)
  if (file === undefined) throw new Error(`${name} is not installed`)
  return file
}
