// Packs each executable into one file (plus one per worker thread) under dist/, which starts faster and
// needs less memory than the sources; bench/ measures these. koffi stays outside: it is native.
import { cp, mkdir, rm } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { rolldown, type Plugin } from 'rolldown'

const executables = { bagcheck: 'cli', 'bagcheck-broker': 'broker', 'bagcheck-agent': 'agent' }

/** `new Worker(new URL('./x.ts', import.meta.url))` names a source file; the packed one lies beside the executable. */
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

await rm('dist', { recursive: true, force: true })
await mkdir('dist')
for (const [name, workspace] of Object.entries(executables)) {
  const bundle = await rolldown({
    input: { [name]: join('packages', workspace, 'src/main.ts') },
    platform: 'node',
    external: ['koffi', 'pg-native'],
    // Not 'import' here: it would hold for require() too, and pg's parts are required.
    resolve: { conditionNames: ['@bagcheck/source', 'node'] },
    plugins: [workers(name), shebang],
  })
  const { output } = await bundle.write({
    dir: 'dist',
    format: 'esm',
    entryFileNames: '[name].mjs',
    chunkFileNames: `${name}.[name].mjs`,
  })
  await bundle.close()
  for (const file of output) console.log(`dist/${file.fileName}`)
}
// What the packed demo builds; it looks beside itself.
await cp('packages/cli/src/demo/nix', 'dist/nix', { recursive: true })
