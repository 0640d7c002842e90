import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  computeOutputPaths,
  derivationGraph,
  derivationPath,
  formatDerivation,
  hashDerivationModulo,
  hashGraphModulo,
  loadDerivationGraph,
  parseStorePath,
  sha256Hex,
  storeDirectoryReader,
  verifyOutputPaths,
} from '@bagcheck/nix'
import type { Derivation, DerivationReader, Sha256, StorePath } from '@bagcheck/nix'
import { flat, Instantiator, pathOf } from './instantiate.ts'
import type { Instantiated } from './instantiate.ts'

const coded = (code: string): unknown => expect.objectContaining({ code })

/** Reads what an instantiator made. */
function readerOf({ derivations }: Instantiator): DerivationReader {
  return async (path) => formatDerivation(derivations.get(path) as Derivation)
}

/** The graph of one derivation, altered and put where its text belongs. */
function moved(nix: Instantiator, derivation: Derivation) {
  const path = derivationPath(derivation)
  return derivationGraph([path], new Map([...nix.derivations, [path, derivation]]))
}

describe('a graph of derivations', () => {
  const nix = new Instantiator()
  const source = nix.add({ name: 'src', fixed: flat('content') })
  const library = nix.add({ name: 'lib', outputs: ['dev', 'out'], inputs: [source] })
  const tool = nix.add({ name: 'tool', inputs: [library], env: { lib: pathOf(library) } })
  const root = nix.add({ name: 'root', inputs: [tool, library], sources: [pathOf(source)] })

  test('has inputs before what uses them, each once', async () => {
    const graph = await loadDerivationGraph([root.path, tool.path], readerOf(nix))
    expect(graph.roots).toEqual([root.path, tool.path])
    const order = [...graph.derivations.keys()]
    expect(order.toSorted()).toEqual([...nix.derivations.keys()].toSorted())
    for (const [path, { inputDerivations }] of graph.derivations)
      for (const input of inputDerivations.keys())
        expect(order.indexOf(input)).toBeLessThan(order.indexOf(path))
    verifyOutputPaths(graph)
  })

  test('is refused where a text is not the one its path stands for', async () => {
    const altered: DerivationReader = async (path) => {
      const text = await readerOf(nix)(path)
      return path === library.path
        ? Buffer.from(Buffer.from(text).toString('latin1').replace('/bin/sh', '/bin/ls'), 'latin1')
        : text
    }
    await expect(loadDerivationGraph([root.path], altered)).rejects.toMatchObject({
      code: 'DRV_PATH',
      detail: { path: library.path },
    })
    const swapped = new Map([...nix.derivations, [tool.path, library.derivation]])
    expect(() => derivationGraph([root.path], swapped)).toThrow(coded('DRV_PATH'))
  })

  test('names the derivation that does not parse', async () => {
    const empty: DerivationReader = async (path) =>
      path === source.path ? new Uint8Array() : readerOf(nix)(path)
    await expect(loadDerivationGraph([root.path], empty)).rejects.toMatchObject({
      code: 'DRV_TRUNCATED',
      message: expect.stringContaining(source.path),
    })
  })

  test('is refused where an output is used that is not there', () => {
    const using = {
      ...root.derivation,
      inputDerivations: new Map([[source.path, ['dev']]]),
    }
    expect(() => moved(nix, using)).toThrow(coded('DRV_INPUT'))
  })

  test('is refused where an input is itself built, and so are its paths', async () => {
    const used = new Map([['out', { outputs: ['out'] }]])
    const using: Derivation = { ...tool.derivation, dynamicInputs: new Map([[library.path, used]]) }
    expect(() => moved(nix, using)).toThrow(coded('DRV_DYNAMIC'))
    const path = derivationPath(using)
    const reader: DerivationReader = async (one) =>
      one === path ? formatDerivation(using) : readerOf(nix)(one)
    await expect(loadDerivationGraph([path], reader)).rejects.toMatchObject({
      code: 'DRV_DYNAMIC',
      detail: { path },
    })
    const known = (): Sha256 => sha256Hex('x')
    expect(() => computeOutputPaths(using, known)).toThrow(coded('DRV_DYNAMIC'))
    expect(() => hashDerivationModulo(using, known)).toThrow(coded('DRV_DYNAMIC'))
    // What a fixed output is follows from no input.
    const fixed: Derivation = { ...using, outputs: source.derivation.outputs, name: 'src' }
    expect(computeOutputPaths(fixed, known).get('out')).toBe(pathOf(source))
  })

  test('is refused where it has a cycle or a hole, whatever the texts hash to', () => {
    const cyclic = { ...source.derivation, inputDerivations: new Map([[root.path, ['out']]]) }
    const cycle = new Map([...nix.derivations, [source.path, cyclic]])
    expect(() => derivationGraph([root.path], cycle)).toThrow(coded('DRV_CYCLE'))
    const hole = new Map(nix.derivations)
    hole.delete(source.path)
    expect(() => derivationGraph([root.path], hole)).toThrow(coded('DRV_READ'))
  })

  test('is read to a limit of derivations and of bytes', async () => {
    for (const limits of [{ maxDerivations: 3 }, { maxBytes: 100 }])
      await expect(loadDerivationGraph([root.path], readerOf(nix), limits)).rejects.toMatchObject({
        code: 'DRV_LIMIT',
      })
    const signal = AbortSignal.abort(new Error('enough'))
    await expect(loadDerivationGraph([root.path], readerOf(nix), { signal })).rejects.toThrow(
      'enough',
    )
  })

  test('may be a chain longer than any call stack', async () => {
    const long = new Instantiator()
    let last: Instantiated | undefined
    for (let n = 0; n < 12_000; n++)
      last = long.add({
        name: 'link',
        env: { n: `${n}` },
        inputs: last === undefined ? [] : [last],
      })
    const graph = await loadDerivationGraph([(last as Instantiated).path], readerOf(long))
    expect(graph.derivations.size).toBe(12_000)
    verifyOutputPaths(graph)
  }, 60_000)

  test('whose fixed outputs are fetched otherwise has the same output paths', () => {
    const other = new Instantiator()
    const mirror = other.add({ name: 'src', fixed: flat('content'), env: { url: 'mirror' } })
    const rebuilt = other.add({ name: 'lib', outputs: ['dev', 'out'], inputs: [mirror] })
    expect(rebuilt.path).not.toBe(library.path)
    expect(pathOf(rebuilt)).toBe(pathOf(library))
    expect(hashGraphModulo(other.graph(rebuilt)).get(rebuilt.path)).toBe(
      hashGraphModulo(nix.graph(library)).get(library.path),
    )
  })
})

describe('output paths', () => {
  const nix = new Instantiator()
  const source = nix.add({ name: 'src', fixed: flat('content') })
  const { derivation } = nix.add({ name: 'x', outputs: ['dev', 'out'], inputs: [source] })
  const wrong = parseStorePath(`/nix/store/${'0'.repeat(32)}-x`)

  test('that follow from the derivation pass', () => {
    verifyOutputPaths(moved(nix, derivation))
  })

  test.each<[string, Derivation, string]>([
    [
      'another input-addressed path',
      {
        ...derivation,
        outputs: new Map([
          ...derivation.outputs,
          ['out', { kind: 'input-addressed', path: wrong }],
        ]),
        env: new Map([...derivation.env, ['out', wrong]]),
      },
      'DRV_OUTPUT_PATH',
    ],
    [
      'a fixed path that does not follow from the hash',
      {
        ...source.derivation,
        outputs: new Map([['out', { kind: 'fixed', path: wrong, address: flat('content') }]]),
        env: new Map([...source.derivation.env, ['out', wrong]]),
      },
      'DRV_OUTPUT_PATH',
    ],
    [
      'no paths where they can be known',
      {
        ...derivation,
        outputs: new Map([
          ['dev', { kind: 'deferred' }],
          ['out', { kind: 'deferred' }],
        ]),
      },
      'DRV_OUTPUT_PATH',
    ],
    [
      'a variable with another path',
      { ...derivation, env: new Map([...derivation.env, ['dev', wrong]]) },
      'DRV_ENVIRONMENT',
    ],
    [
      'no variable for an output',
      { ...source.derivation, env: new Map([['name', 'src']]) },
      'DRV_ENVIRONMENT',
    ],
  ])('with %s are refused', (_, altered, code) => {
    expect(() => verifyOutputPaths(moved(nix, altered))).toThrow(coded(code))
  })

  test('cannot be stated where an input is known only after the build', () => {
    const floating: Derivation = {
      ...derivation,
      name: 'floating',
      outputs: new Map([['out', { kind: 'floating', method: 'nar', algorithm: 'sha256' }]]),
      inputDerivations: new Map(),
    }
    const input = derivationPath(floating)
    const using = { ...derivation, inputDerivations: new Map([[input, ['out']]]) }
    const path = derivationPath(using)
    const graph = derivationGraph(
      [path],
      new Map<StorePath, Derivation>([
        [input, floating],
        [path, using],
      ]),
    )
    expect(() => verifyOutputPaths(graph)).toThrow(coded('DRV_OUTPUT_PATH'))
    expect(hashGraphModulo(graph).get(path)).toBeUndefined()
  })
})

describe('a store directory', () => {
  let directory: string
  const nix = new Instantiator()
  const { path, derivation } = nix.add({ name: 'x' })
  const missing = parseStorePath(`/nix/store/${'0'.repeat(32)}-missing.drv`)
  const link = parseStorePath(`/nix/store/${'1'.repeat(32)}-link.drv`)
  const folder = parseStorePath(`/nix/store/${'2'.repeat(32)}-folder.drv`)
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-drv-'))
    writeFileSync(join(directory, basename(path)), formatDerivation(derivation))
    symlinkSync(basename(path), join(directory, basename(link)))
    mkdirSync(join(directory, basename(folder)))
  })
  afterAll(() => rmSync(directory, { recursive: true }))

  test('is read from wherever it is mounted', async () => {
    const graph = await loadDerivationGraph([path], storeDirectoryReader(directory))
    expect(graph.derivations.get(path)).toEqual(derivation)
  })

  test('gives regular files only', async () => {
    for (const one of [missing, link, folder])
      await expect(storeDirectoryReader(directory)(one)).rejects.toMatchObject({ code: 'DRV_READ' })
  })
})
