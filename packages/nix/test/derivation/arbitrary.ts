// Any derivation, for properties.
import fc from 'fast-check'
import { contentAddressedPath, parseStorePath } from '@bagcheck/nix'
import type {
  Derivation,
  DerivationOutput,
  DynamicOutputs,
  StorePath,
  UsedOutputs,
} from '@bagcheck/nix'

const paths = (...names: string[]): fc.Arbitrary<StorePath> =>
  fc.tuple(fc.integer({ min: 0, max: 0xffff }), fc.constantFrom(...names)).map(([n, name]) => {
    const part = n.toString(16).padStart(32, '0').replaceAll('e', 'g')
    return parseStorePath(`/nix/store/${part}-${name}`)
  })
const outputName = fc.constantFrom('out', 'dev', 'bin', 'a+b', '_?=', '10', '9')
const rising = <T extends string>(one: fc.Arbitrary<T>, minLength = 0): fc.Arbitrary<T[]> =>
  fc.uniqueArray(one, { minLength, maxLength: 4 }).map((all) => all.toSorted())
const rising2 = <K extends string, V>(key: fc.Arbitrary<K>, value: fc.Arbitrary<V>, least = 0) =>
  fc
    .tuple(rising(key, least), fc.array(value, { minLength: 4, maxLength: 4 }))
    .map(([keys, values]) => new Map(keys.map((one, index) => [one, values[index] as V])))
const digest = fc.uint8Array({ minLength: 20, maxLength: 20 })
const outputs: fc.Arbitrary<Map<string, DerivationOutput>> = fc.oneof(
  rising2(outputName, fc.record({ kind: fc.constant('input-addressed'), path: paths('x') }), 1),
  rising2(outputName, fc.record({ kind: fc.constant('deferred') }), 1),
  ...(['floating', 'impure'] as const).map((kind) =>
    rising2(
      outputName,
      fc.record({
        kind: fc.constant(kind),
        method: fc.constantFrom('flat', 'nar', 'git', 'text'),
        algorithm: fc.constant('sha256'),
      }),
      1,
    ),
  ),
  fc.tuple(fc.constantFrom('flat', 'nar', 'git'), digest).map(([method, bits]) => {
    const address = { method, hash: { algorithm: 'sha1', digest: bits } } as const
    return new Map([['out', { kind: 'fixed', path: contentAddressedPath('x', address), address }]])
  }),
) as fc.Arbitrary<Map<string, DerivationOutput>> // fast-check widens the kinds

const plainUse = rising(outputName, 1).map((names): UsedOutputs => ({ outputs: names }))
const nestedUse = (depth: number): fc.Arbitrary<UsedOutputs> =>
  fc
    .tuple(rising(outputName), rising2(outputName, depth > 1 ? use(depth - 1) : plainUse, 1))
    .map(([names, dynamicOutputs]) => ({ outputs: names, dynamicOutputs }))
const use = (depth: number): fc.Arbitrary<UsedOutputs> => fc.oneof(plainUse, nestedUse(depth))

/** Derivations of the name `x` whose texts are `strings`; `dynamic` ones have dynamic inputs. */
export function derivationsOf(
  strings: fc.Arbitrary<string>,
  { dynamic = true } = {},
): fc.Arbitrary<Derivation> {
  return fc
    .record({
      name: fc.constant('x'),
      outputs,
      used: rising2(paths('x.drv', 'y.drv', 'z-1.0.drv'), dynamic ? use(3) : plainUse),
      inputSources: rising(paths('x', 'y.drv', 'z-1.0')),
      platform: strings,
      builder: strings,
      args: fc.array(strings, { maxLength: 4 }),
      env: rising2(strings, strings),
    })
    .map(({ used, ...rest }) => {
      const dynamicInputs = new Map<StorePath, DynamicOutputs>()
      for (const [path, { dynamicOutputs }] of used)
        if (dynamicOutputs !== undefined) dynamicInputs.set(path, dynamicOutputs)
      return {
        ...rest,
        inputDerivations: new Map(Array.from(used, ([path, one]) => [path, one.outputs])),
        ...(dynamicInputs.size > 0 && { dynamicInputs }),
      }
    })
}
