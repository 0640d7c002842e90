// Derivations that real Nix made from our own expressions, against what we say about them.
import { hash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  nixAvailable,
  nixBuild,
  nixEnvironment,
  nixString,
  runNix,
  shellDerivation,
} from '@bagcheck/testkit'
import { beforeAll, describe, expect, test } from 'vitest'
import {
  computeOutputPaths,
  contentAddressedPath,
  decodeByteString,
  DERIVATION_JSON_VERSIONS,
  derivationGraph,
  derivationPath,
  downstreamPlaceholder,
  encodeByteString,
  formatContentAddress,
  formatDerivation,
  formatDerivationJson,
  formatHashDigits,
  HASH_ALGORITHMS,
  hashGraphModulo,
  loadDerivationGraph,
  outputPath,
  parseContentAddress,
  parseDerivation,
  parseDerivationJson,
  parseHashDigits,
  parseStorePath,
  storePathName,
  storeDirectoryReader,
  derivationName,
  textPath,
  verifyOutputPaths,
} from '@bagcheck/nix'
import type { Derivation, DerivationGraph, StorePath } from '@bagcheck/nix'
import { flat, Instantiator, pathOf } from './instantiate.ts'
import type { Instantiated } from './instantiate.ts'

const FEATURES = 'nix-command ca-derivations impure-derivations'
const file = join(import.meta.dirname, 'every-kind.nix')

/** `.drv` paths by attribute of one set of the file. */
function instantiate(set: string): Record<string, StorePath> {
  const environment = nixEnvironment()
  const expression = `builtins.mapAttrs (_: d: d.drvPath) (import ${file}).${set}`
  const args = ['--eval', '--strict', '--json', '--read-write-mode', '--expr', expression]
  const printed = runNix('nix-instantiate', args, {
    ...environment,
    NIX_CONFIG: `${environment.NIX_CONFIG}\nexperimental-features = ${FEATURES}`,
  })
  return JSON.parse(printed) as Record<string, StorePath>
}

describe.runIf(nixAvailable())('derivations of real Nix', () => {
  let paths: Record<string, StorePath>
  let graph: DerivationGraph
  const at = (name: string): Derivation => {
    const derivation = graph.derivations.get(paths[name] as StorePath)
    if (derivation === undefined) throw new TypeError(name)
    return derivation
  }

  beforeAll(async () => {
    paths = { ...instantiate('plain'), ...instantiate('experimental') }
    graph = await loadDerivationGraph(Object.values(paths), storeDirectoryReader())
  })

  test('cover every kind of output', () => {
    const outputs = [...graph.derivations.values()].flatMap(({ outputs }) => [...outputs.values()])
    expect(new Set(outputs.map(({ kind }) => kind))).toEqual(
      new Set(['input-addressed', 'fixed', 'floating', 'impure', 'deferred']),
    )
    const addresses = outputs.flatMap((output) =>
      output.kind === 'fixed' ? [`${output.address.method}:${output.address.hash.algorithm}`] : [],
    )
    expect(new Set(addresses).size).toBe(8)
  })

  test('print back byte for byte, and give their own path', () => {
    expect(graph.derivations.size).toBeGreaterThan(Object.keys(paths).length)
    for (const [path, derivation] of graph.derivations) {
      const text = readFileSync(path)
      expect(Buffer.from(formatDerivation(derivation)).equals(text), path).toBe(true)
      expect(parseDerivation(text, derivationName(path))).toEqual(derivation)
      expect(derivationPath(derivation)).toBe(path)
    }
  })

  test('have the output paths that we compute', () => {
    verifyOutputPaths(graph)
    const hashes = hashGraphModulo(graph)
    for (const derivation of graph.derivations.values()) {
      const computed = computeOutputPaths(derivation, (input) => hashes.get(input))
      for (const [name, output] of derivation.outputs)
        expect(computed.get(name)).toBe(outputPath(output))
    }
  })

  test('have the output paths that nix-store says', () => {
    for (const name of ['multiple', 'merged', 'mergedDeep', 'structured', 'behindFixed', 'last']) {
      const path = paths[name] as StorePath
      const listed = runNix('nix-store', ['--query', '--outputs', path]).trim().split('\n')
      expect(new Set([...at(name).outputs.values()].map(outputPath))).toEqual(new Set(listed))
    }
  })

  test('refer to their input derivations and sources, and to nothing else', () => {
    for (const name of ['uses', 'needsDrv', 'needsAll', 'merged', 'deferred']) {
      const path = paths[name] as StorePath
      const listed = runNix('nix-store', ['--query', '--references', path]).trim().split('\n')
      const { inputDerivations, inputSources } = at(name)
      const references: Set<string> = new Set([...inputDerivations.keys(), ...inputSources])
      expect(references).toEqual(new Set(listed))
    }
  })

  test('are those that nix show-derivation prints', () => {
    const features = ['--extra-experimental-features', FEATURES]
    const printed = runNix('nix', ['show-derivation', ...features, '-r', ...Object.values(paths)])
    const parsed = parseDerivationJson(Buffer.from(printed))
    expect(parsed.size).toBe(graph.derivations.size)
    for (const [path, derivation] of graph.derivations) expect(parsed.get(path)).toEqual(derivation)
    expect(derivationGraph(graph.roots, parsed)).toEqual(graph)
    expect(formatDerivationJson(graph.derivations, 1)).toBe(printed)
    for (const version of DERIVATION_JSON_VERSIONS) {
      const text = formatDerivationJson(graph.derivations, version)
      expect(parseDerivationJson(Buffer.from(text))).toEqual(parsed)
    }
  })

  test('hold the placeholders that we compute', () => {
    const floating = paths['floating'] as StorePath
    expect(at('floatingUse').env.get('dev')).toBe(downstreamPlaceholder(floating, 'dev'))
    expect(at('floatingUse').env.get('floating')).toBe(downstreamPlaceholder(floating, 'out'))
  })

  test('merge inputs that differ only in how a fixed output is fetched', () => {
    const hashes = hashGraphModulo(graph)
    const [a, b] = [...at('mergedDeep').inputDerivations.keys()]
    expect(a).not.toBe(b)
    expect(hashes.get(a as StorePath)).toBe(hashes.get(b as StorePath))
  })

  test('keep text that is not ASCII', () => {
    const { env, args } = at('unicode')
    expect(decodeByteString(env.get('description') ?? '')).toBe('Größe → ∞ 🎒')
    expect([...env.keys()].map(decodeByteString)).toContain('ключ')
    expect(args.map(decodeByteString)).toEqual(['é'])
  })

  test('texts have the paths that builtins.toFile gives them', () => {
    const texts = JSON.parse(
      runNix('nix-instantiate', [
        ...['--eval', '--strict', '--json', '--read-write-mode'],
        ...['--expr', `(import ${file}).texts`],
      ]),
    ) as { text: string; referring: string }
    const text = textPath('text', Buffer.from('some text\n'))
    expect(texts.text).toBe(text)
    const referring = textPath('referring', Buffer.from(`see ${text}\n`), [text])
    expect(parseStorePath(texts.referring)).toBe(referring)
  })

  test('paths that were made content-addressed have the paths that we compute', () => {
    const library = shellDerivation('ca-library', 'mkdir $out; echo $out > $out/self')
    const tool = shellDerivation('ca-tool', 'mkdir $out; echo $out $library > $out/both', {
      library,
    })
    const features = ['--extra-experimental-features', FEATURES]
    const root = nixBuild(tool)
    runNix('nix', ['store', 'make-content-addressed', ...features, '-r', root])
    const all = JSON.parse(runNix('nix', ['path-info', ...features, '--json', '--all'])) as {
      path: string
      ca?: string
      references: string[]
    }[]
    const addressed = all.filter(({ path, ca }) => ca !== undefined && !path.endsWith('.drv'))
    expect(addressed.some(({ path }) => path.endsWith('-ca-tool'))).toBe(true)
    for (const { path, ca = '', references } of addressed) {
      const own = parseStorePath(path)
      const others = references.map(parseStorePath).filter((one) => one !== own)
      const address = parseContentAddress(ca)
      expect(formatContentAddress(address)).toBe(ca)
      const computed = contentAddressedPath(storePathName(own), address, {
        references: others,
        self: references.includes(own),
      })
      expect(computed).toBe(own)
    }
  })

  test.each(HASH_ALGORITHMS)('nix-hash spells %s as we do', (algorithm) => {
    const digest = new Uint8Array(hash(algorithm, 'abc', 'buffer'))
    for (const [flag, encoding] of [
      ['--to-base16', 'base16'],
      ['--to-base32', 'nix32'],
    ] as const)
      for (const given of ['base16', 'nix32', 'base64'] as const) {
        const text = formatHashDigits(digest, given)
        const printed = runNix('nix-hash', ['--type', algorithm, flag, text]).trim()
        expect(printed).toBe(formatHashDigits(digest, encoding))
        expect(parseHashDigits(algorithm, printed)).toEqual(digest)
      }
  })

  test('of many shapes have the paths that our tests make for them', () => {
    // What `instantiate.ts` does is relied on by the tests of root causes and audits.
    const nix = new Instantiator()
    const made: Instantiated[] = []
    const expressions: string[] = []
    for (let n = 0; n < 40; n++) {
      const inputs = [n - 1, n - 3, n >> 1].filter(
        (input, at, all) => input >= 0 && input < n && all.indexOf(input) === at,
      )
      const outputs = n % 3 === 0 ? ['dev', 'out'] : ['out']
      const text = [`caf\u00e9 ${n}`, 'a"b\\c', 'line\n\ttab', ''][n % 4] ?? ''
      const fixed = n % 5 === 4 ? flat(`${n}`) : undefined
      const used = inputs.map((input) => made[input] as Instantiated)
      made.push(
        nix.add({
          name: `shape-${n}`,
          outputs: fixed ? ['out'] : outputs,
          ...(fixed && { fixed }),
          inputs: used,
          args: ['-c', encodeByteString(text)],
          env: {
            builder: '/bin/sh',
            system: 'x86_64-linux',
            inputs: used
              .flatMap((one) => [...one.derivation.outputs.keys()].map((name) => pathOf(one, name)))
              .join(' '),
            ...(fixed
              ? {
                  outputHash: hash('sha256', `${n}`, 'hex'),
                  outputHashAlgo: 'sha256',
                  outputHashMode: 'flat',
                }
              : { outputs: outputs.join(' ') }),
          },
        }),
      )
      const names = used
        .map((one, at) =>
          [...one.derivation.outputs.keys()].map((name) => `d${inputs[at]}.${name}`),
        )
        .flat()
      expressions.push(`d${n} = derivation {
        name = "shape-${n}"; system = "x86_64-linux"; builder = "/bin/sh";
        args = [ "-c" ${nixString(text)} ]; inputs = [ ${names.join(' ')} ];
        ${fixed ? `outputHash = builtins.hashString "sha256" "${n}"; outputHashAlgo = "sha256"; outputHashMode = "flat";` : `outputs = [ ${outputs.map((one) => `"${one}"`).join(' ')} ];`}
      };`)
    }
    const all = made.map((_, n) => `d${n}.drvPath`).join(' ')
    const expression = `let ${expressions.join('\n')} in [ ${all} ]`
    const printed = runNix('nix-instantiate', [
      '--eval',
      '--strict',
      '--json',
      '--expr',
      expression,
    ])
    expect(JSON.parse(printed)).toEqual(made.map(({ path }) => path))
  })
})
