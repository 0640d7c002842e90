// Packs each executable into one file, plus one per worker thread and what they share, under dist/ or the
// directory given: that starts faster and needs less memory than the sources; bench/ measures these. koffi
// stays outside, because it is native: node_modules must lie beside the directory or above it.
import { cp, mkdir, rm } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { rolldown, type Plugin } from 'rolldown'

const executables = { bagcheck: 'cli', 'bagcheck-broker': 'broker', 'bagcheck-agent': 'agent' }

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

/** The sources ask for the source condition of the workspace; the packed file needs nothing. */
const shebang: Plugin = {
  name: 'shebang',
  renderChunk: (code) => code.replace(/^#!.*\n/, '#!/usr/bin/env node\n'),
}

const root = resolve(import.meta.dirname, '..')
const directory = resolve(process.argv[2] ?? join(root, 'dist'))

await rm(directory, { recursive: true, force: true })
await mkdir(directory, { recursive: true })
for (const [name, workspace] of Object.entries(executables)) {
  const bundle = await rolldown({
    cwd: root,
    input: { [name]: join('packages', workspace, 'src/main.ts') },
    platform: 'node',
    external: ['koffi', 'pg-native'],
    // `import` or `require` is added by the kind of each import: forcing one gives pg the wrong half of itself.
    resolve: { conditionNames: ['@bagcheck/source', 'node'] },
    plugins: [workers(name), shebang],
  })
  const { output } = await bundle.write({
    dir: directory,
    format: 'esm',
    entryFileNames: '[name].mjs',
    chunkFileNames: `${name}.[name].mjs`,
  })
  await bundle.close()
  for (const file of output) console.log(join(directory, file.fileName))
}
// The derivations of the demo, which the command reads from beside itself.
await cp(join(root, 'packages/cli/src/demo/nix'), join(directory, 'nix'), { recursive: true })
