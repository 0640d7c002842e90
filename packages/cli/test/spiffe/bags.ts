// Builds the bags of programs that speak SPIFFE.
import { execFileSync } from 'node:child_process'
import { cpSync, mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { nixString } from '@bagcheck/testkit'
import { named, nixEnvironment, writeInputs } from '../../src/demo/build.ts'
import { javaRuntime, linkageOfAll } from '../attacks/services.ts'
import { pythonLinkage } from './clients.ts'

/** Builds `attribute` of workload.nix for `arguments_` and returns its store path. */
export async function buildBag(
  scratch: string,
  attribute: string,
  arguments_: Readonly<Record<string, string>>,
): Promise<string> {
  const config = await writeInputs(scratch)
  const fields = Object.entries(arguments_).map(([name, value]) => `${name} = ${nixString(value)};`)
  const file = join(import.meta.dirname, 'workload.nix')
  const expression = `(import ${file} { config = ${config}; }).${attribute} { ${fields.join(' ')} }`
  const args = ['--no-out-link', '--expr', expression]
  return execFileSync('nix-build', args, { env: nixEnvironment(), encoding: 'utf8' }).trim()
}

/** A Python of this machine, relinked, with the modules and the program in `folder`. */
export function buildPython(scratch: string, folder: string): Promise<string> {
  const { program, loader, libraries } = pythonLinkage(folder)
  const linkage = {
    ...{ program: named(program), loader: named(loader), data: folder },
    libraries: libraries.map(named),
  }
  return buildBag(scratch, 'python', { linkage: JSON.stringify(linkage) })
}

/** A JVM of this machine, relinked, with the programs in `folder` and what they would unpack when they run. */
export async function buildJava(scratch: string, folder: string): Promise<string> {
  const runtime = javaRuntime(scratch)
  if (runtime === undefined) throw new Error('the JDK that built the client is gone')
  const { program, data = '', settings, plugins = [] } = runtime
  // Where the JVM looks for the libraries of classes first. They have needs of their own.
  const native = join(folder, 'native')
  cpSync(native, data, { recursive: true })
  const unpacked = readdirSync(native).map((file) => join(native, file))
  const linkage = {
    ...{ program: named(program), data, settings },
    ...(await linkageOfAll(program, [...plugins, ...unpacked])),
  }
  return buildBag(scratch, 'java', { linkage: JSON.stringify(linkage), folder })
}

/** A folder with the workload and the packages that it needs, for {@link buildBag}. */
export function stageWorkload(scratch: string): string {
  const folder = join(scratch, 'workload')
  mkdirSync(join(folder, 'node_modules'), { recursive: true })
  cpSync(join(import.meta.dirname, 'workload.mjs'), join(folder, 'workload.mjs'))
  cpSync(WORKLOAD_PROTO, join(folder, 'workload.proto'))
  const seen = new Set<string>()
  const add = (name: string, from: string): void => {
    if (seen.has(name)) return
    seen.add(name)
    const home = packageDirectory(name, from)
    cpSync(home, join(folder, 'node_modules', name), { recursive: true, dereference: true })
    const manifest = JSON.parse(readFileSync(join(home, 'package.json'), 'utf8')) as {
      dependencies?: Readonly<Record<string, string>>
    }
    // Command lines of packages need yargs; nothing here runs them.
    for (const needed of Object.keys(manifest.dependencies ?? {}))
      if (needed !== 'yargs' && !needed.startsWith('@types/')) add(needed, home)
  }
  add('@grpc/grpc-js', import.meta.dirname)
  add('@grpc/proto-loader', import.meta.dirname)
  return folder
}

/** The Workload API as its clients know it. */
export const WORKLOAD_PROTO: string = join(
  import.meta.dirname,
  '../../../agent/test/fixture/workload.proto',
)

function packageDirectory(name: string, from: string): string {
  const paths = createRequire(join(from, 'x.js')).resolve.paths(name) ?? []
  for (const path of paths) {
    try {
      readFileSync(join(path, name, 'package.json'))
      return join(path, name)
    } catch {
      // not there: the next folder up
    }
  }
  throw new Error(`${name} is not installed, asked from ${dirname(from)}`)
}
