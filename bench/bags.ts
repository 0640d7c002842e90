// A real closure for live workloads: the demo's perl, relinked by a sandboxed build, with a script of ours.
import { execFileSync } from 'node:child_process'
import { realpathSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import type { SigningKey } from '@bagcheck/attest'
import {
  buildFileList,
  buildManifest,
  NIX_DATABASE_FILE,
  openNixDatabase,
  parseStorePath,
} from '@bagcheck/nix'
import { findCommand, nixEnvironment } from '../packages/cli/src/demo/build.ts'
import { attest, type Attested } from './closures.ts'

const DERIVATIONS = resolve(import.meta.dirname, '../packages/cli/src/demo/nix')

/** A bag on the interpreter of `reports`, the demo's perl service, and how it is started. */
export interface Bag {
  readonly command: readonly [string, ...string[]]
  /** For `createInstallation`. */
  readonly attested: (key: SigningKey) => Attested[]
}

/** Builds the workload's bag; Nix's daemon must run. */
export async function buildWorkload(reports: string): Promise<Bag> {
  const perl = realpathSync(join(reports, 'bin/perl'))
  const busybox = (await findCommand('busybox')) ?? ''
  const expression = `import ${DERIVATIONS}/service.nix {
    name = "workload-1.0";
    runtime = builtins.storePath ${dirname(dirname(perl))};
    program = "perl";
    script = ${resolve(import.meta.dirname, 'workload.pl')};
    scriptName = "workload.pl";
    data = "{}";
    tools.busybox = "\${builtins.path {
      path = ${dirname(busybox)};
      name = "busybox";
      filter = file: type: file == "${busybox}";
    }}/busybox";
  }`
  const output = execFileSync('nix-build', ['--no-out-link', '-E', expression], {
    env: nixEnvironment(),
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const root = parseStorePath(output.trim())
  const database = openNixDatabase(NIX_DATABASE_FILE)
  const manifest = buildManifest(root, database.readClosure(root))
  await database.close()
  const files = await buildFileList(manifest)
  const entry = {
    executable: 'demo-perl-*/bin/perl',
    script: 'workload-*/lib/workload.pl',
    arguments: ['{script}'],
  }
  return {
    command: [perl, join(root, 'lib/workload.pl')],
    attested: (key) => [attest({ name: 'workload', entry, manifest, files }, key)],
  }
}
