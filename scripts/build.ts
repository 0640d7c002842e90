// Packs each executable into one file, plus one per worker thread and what they share, under dist/ or the
// directory given: that starts faster and needs less memory than the sources; bench/ measures these. The
// directory is whole: it can be copied to any host that has Node. For each executable it holds
//
//   NAME            a shell script that finds Node and starts it
//   NAME.mjs        says so if Node is too old, in a language that an old one reads
//   NAME.main.mjs   the program
//   node_modules/   koffi, which is native and cannot be packed
import { chmod, cp, mkdir, readdir, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { rolldown, type Plugin } from 'rolldown'

const executables = {
  bagcheck: 'cli/src/main.ts',
  'bagcheck-broker': 'broker/src/main.ts',
  'bagcheck-agent': 'agent/src/main.ts',
  'bagcheck-measurer': 'agent/src/measurer-main.ts',
}

/** `new URL('./x.ts', import.meta.url)` names a worker's source file; the packed one lies beside the executable. */
function workers(executable: string): Plugin {
  return {
    name: 'workers',
    transform(code, id) {
      return code.replaceAll(
        /new URL\('(\.[^']*\.ts)', import\.meta\.url\)/g,
        (_match, path: string) => {
          const fileName = `${executable}.${basename(path, '.ts')}.mjs`
          this.emitFile({ type: 'chunk', id: resolve(dirname(id), path), fileName })
          return `new URL('./${fileName}', import.meta.url)`
        },
      )
    },
  }
}

/** The sources name an interpreter that knows the workspace; the packed file is not started itself. */
const shebang: Plugin = {
  name: 'shebang',
  renderChunk: (code) => code.replace(/^#!.*\n/, ''),
}

/** No syntax and no module that Node 12 lacks: it must say what is wrong, and not break over it. */
const starter = (name: string): string => `#!/usr/bin/env node
var version = process.versions.node.split('.').map(Number)
if (version[0] < 24 || (version[0] === 24 && version[1] < 15)) {
  process.stderr.write('${name}: Node 24.15 or later is needed; this is ' + process.version + ', ' + process.execPath + '\\n')
  process.exit(3)
}
import('./${name}.main.mjs').catch(function (error) {
  process.stderr.write('${name}: ' + ((error && error.stack) || error) + '\\n')
  process.exit(3)
})
`

/** Node beside the script comes first, then that of the workspace, then the one on the search path. */
const launcher = (name: string): string => `#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
for node in "$here/node" "$here/../node_modules/.bin/node"; do
  [ -x "$node" ] && exec "$node" "$here/${name}.mjs" "$@"
done
exec node "$here/${name}.mjs" "$@"
`

const root = resolve(import.meta.dirname, '..')
const directory = resolve(process.argv[2] ?? join(root, 'dist'))

await rm(directory, { recursive: true, force: true })
await mkdir(directory, { recursive: true })
for (const [name, main] of Object.entries(executables)) {
  const bundle = await rolldown({
    cwd: root,
    input: { [name]: join('packages', main) },
    platform: 'node',
    external: ['koffi', 'pg-native'],
    // `import` or `require` is added by the kind of each import: forcing one gives pg the wrong half of itself.
    resolve: { conditionNames: ['@bagcheck/source', 'node'] },
    // A module of ours of which nothing is used does nothing: the broker compiles no YAML, and needs no parser.
    treeshake: { moduleSideEffects: [{ test: /\/packages\/\w+\/src\//, sideEffects: false }] },
    plugins: [workers(name), shebang],
  })
  const { output } = await bundle.write({
    dir: directory,
    format: 'esm',
    entryFileNames: '[name].main.mjs',
    chunkFileNames: `${name}.[name].mjs`,
  })
  await bundle.close()
  await writeFile(join(directory, `${name}.mjs`), starter(name))
  await writeFile(join(directory, name), launcher(name))
  for (const file of [name, `${name}.mjs`]) await chmod(join(directory, file), 0o755)
  for (const file of [name, `${name}.mjs`, ...output.map(({ fileName }) => fileName)])
    console.log(join(directory, file))
}
const native = join(root, 'node_modules/@koromix')
for (const name of ['koffi', ...(await readdir(native)).map((file) => `@koromix/${file}`)]) {
  const from = join(root, 'node_modules', name)
  await cp(from, join(directory, 'node_modules', name), { recursive: true })
}
// The derivations of the demo, which the command reads from beside itself.
await cp(join(root, 'packages/cli/src/demo/nix'), join(directory, 'nix'), { recursive: true })
