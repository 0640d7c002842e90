import { join } from 'node:path'
import {
  type BuildFacts,
  type BuildFactsOptions,
  collectBuildFacts,
  createClosureAttestation,
  createProvenance,
  parseSigningKey,
} from '@bagcheck/attest'
import { buildFileList, parseNarHash, parseSha256, storePathName } from '@bagcheck/nix'
import { parseRoot, readClosureFrom, SOURCE_OPTIONS } from '../closure/source.ts'
import { command } from '../command.ts'
import { CliError } from '../error.ts'
import { MAX_SMALL_BYTES, readInput, readSmallText, writeOutput } from '../files.ts'
import { rfc3339 } from '../time.ts'

export const attestRoot = command({
  summary: 'Attest a closure: sign what it is and how it was built (CI).',
  positionals: 'ROOT',
  description: [
    'Hashes every file of the closure from the store and writes NAME.manifest, NAME.files, ' +
      'NAME.sigstore.json, NAME.intoto.jsonl and NAME.labels.json. What is not known about the build is ' +
      'said to be unknown; policy may demand to know.',
    'Each fact is printed with its source. Settings are those that the nix command here states; with a ' +
      "daemon they are its client's, so keep both on one nix.conf. Whether evaluation was pure leaves no " +
      'trace: say --pure where it was, as in a flake build without --impure.',
  ],
  options: {
    key: { type: 'string', value: 'FILE', required: true, help: "CI's signing key, PEM" },
    output: { type: 'string', value: 'DIR', required: true, help: 'where to write' },
    'builder-id': { type: 'string', value: 'URI', help: 'who built it, for the SLSA provenance' },
    flake: { type: 'string', value: 'URL', help: 'the flake that was built, without revision' },
    rev: { type: 'string', value: 'REV', help: 'its revision' },
    'source-hash': { type: 'string', value: 'HASH', help: 'narHash of its source tree' },
    'flake-lock': { type: 'string', value: 'FILE', help: 'the flake.lock that pinned its inputs' },
    rebuild: {
      type: 'string',
      value: 'RESULT',
      help: 'of a second build: match, mismatch or not-run',
    },
    'successor-of': {
      type: 'string',
      value: 'DIGEST',
      multiple: true,
      help: 'closure digest that this closure replaces; policy decides',
    },
    pure: { type: 'boolean', help: 'state that evaluation was pure' },
    impure: { type: 'boolean', help: 'state that evaluation was impure' },
    ...SOURCE_OPTIONS,
  },
  examples: ['bagcheck attest $(nix build --print-out-paths) --key ci.pem --pure -o out/'],
  run: async ({ env, signal, now, result, progress }, values, [argument = '']) => {
    // What only the caller knows is checked before anything is hashed.
    const stated = readStatedFacts(values)
    const root = parseRoot(argument)
    const key = parseSigningKey(await readSmallText(values.key))
    const manifest = await readClosureFrom(root, values, signal)
    const files = await buildFileList(manifest, {
      signal,
      onProgress: ({ paths, totalPaths }) => progress(`hashed ${paths} of ${totalPaths} paths`),
    })
    const facts = await collectBuildFacts(manifest, {
      nix: { environment: { ...env }, signal },
      ...stated,
      ...(values['flake-lock'] && {
        flakeLock: await readInput(values['flake-lock'], MAX_SMALL_BYTES),
      }),
    })
    const { bundle, intotoJsonl, labels } = createClosureAttestation({
      manifest,
      files,
      facts,
      key,
    })
    const base = join(values.output, storePathName(root))
    await writeOutput(`${base}.manifest`, manifest.text)
    await writeOutput(`${base}.files`, files.text)
    await writeOutput(`${base}.sigstore.json`, bundle)
    await writeOutput(`${base}.labels.json`, `${JSON.stringify(labels, null, 2)}\n`)
    const builderId = values['builder-id']
    const provenance =
      builderId &&
      createProvenance({
        ...{ manifest, files, facts, key, builderId },
        finishedOn: rfc3339(now()),
      })
    if (provenance) await writeOutput(`${base}.provenance.sigstore.json`, provenance.bundle)
    await writeOutput(
      `${base}.intoto.jsonl`,
      `${intotoJsonl}${provenance ? provenance.intotoJsonl : ''}`,
    )
    result(
      {
        root,
        closureDigest: manifest.digest,
        filesDigest: files.digest,
        paths: manifest.entries.length,
        files: files.files.length,
        keyId: key.keyId,
        bundle: `${base}.sigstore.json`,
        build: facts.build,
      },
      [
        `root            ${root}`,
        `closure digest  ${manifest.digest}`,
        `content         ${manifest.entries.length} paths, ${files.files.length} files`,
        `signed by       ${key.keyId}`,
        `written         ${base}.{manifest,files,sigstore.json,intoto.jsonl,labels.json}`,
        ...(provenance ? [`provenance      ${base}.provenance.sigstore.json`] : []),
        'build facts',
        ...describeBuild(facts.build),
      ],
    )
  },
})

/** One line for each fact of the build; those that policy may demand come first. */
function describeBuild(build: BuildFacts): string[] {
  return Object.entries(build).map(([name, { value, source }]) => {
    const shown = Array.isArray(value) ? value.join(' ') || 'none' : String(value)
    const said = value === null ? `UNKNOWN${TO_KNOW[name] ?? ''}` : `${shown} (${source})`
    return `  ${name.padEnd(18)}${said}`
  })
}

/** How a fact becomes known; a role whose policy demands it denies until then. */
const TO_KNOW: Readonly<Record<string, string>> = {
  impure: ': state --pure or --impure',
  rebuild: ': state --rebuild',
  sandbox: ': no nix command answered',
  sandboxFallback: ': no nix command answered',
}

interface StatedValues {
  readonly flake: string | undefined
  readonly rev: string | undefined
  readonly 'source-hash': string | undefined
  readonly 'builder-id': string | undefined
  readonly rebuild: string | undefined
  readonly 'successor-of': readonly string[]
  readonly pure: boolean
  readonly impure: boolean
}

const REBUILDS = ['match', 'mismatch', 'not-run'] as const

function readStatedFacts(values: StatedValues): Omit<BuildFactsOptions, 'nix' | 'flakeLock'> {
  const { pure, impure, flake: url, rev } = values
  if (pure && impure) throw new CliError('USAGE', 'either --pure or --impure')
  const rebuild = REBUILDS.find((result) => result === values.rebuild)
  if (values.rebuild !== undefined && rebuild === undefined)
    throw new CliError('USAGE', `--rebuild: expected ${REBUILDS.join(', ')}`)
  const builderId = values['builder-id']
  if (builderId !== undefined && !URL.canParse(builderId))
    throw new CliError('USAGE', '--builder-id: expected a URI')
  const narHash = values['source-hash'] && parseNarHash(values['source-hash'])
  return {
    successorOf: values['successor-of'].map(parseSha256),
    flake: { ...(url && { url }), ...(rev && { rev }), ...(narHash && { narHash }) },
    ...(pure || impure ? { impure } : {}),
    ...(rebuild && { rebuild }),
  }
}
