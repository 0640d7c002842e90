// Prints derivation JSON in each version that `json.ts` reads, so that parsing gives the same derivations, and so
// that it is what Nix prints:
//   1  nix show-derivation 2.8: keys as they stand here, \u0008 and \u000c without short escape
//   2  nix derivation show 2.24 to 2.30   3  2.32   4  2.33 and later: keys in byte order
// All with two spaces of indentation and a line feed at the end, which 2.31 and later do on a terminal or with
// `--pretty`; otherwise they leave out all white space, and nothing else differs.
import { formatMethodAndAlgorithm } from '../content-address.ts'
import { NixError, quote } from '../error.ts'
import { formatHash, formatHashDigits } from '../hash.ts'
import { derivationName } from '../output-path.ts'
import { byteOrder, storePathBase } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import { parseStrictJson, STRICT_JSON_MAX_DEPTH } from '../strict-json.ts'
import { checkFixedPath, STRUCTURED_ATTRIBUTES } from './derivation.ts'
import type { Derivation, DerivationOutput, UsedOutputs } from './derivation.ts'
import { byKey, isRawJson, parseKeepingNumbers, printStructured } from './structured.ts'

/** The versions of derivation JSON, as Nix's manual counts them. */
export const DERIVATION_JSON_VERSIONS = [1, 2, 3, 4] as const

/** One of {@link DERIVATION_JSON_VERSIONS}. */
export type DerivationJsonVersion = (typeof DERIVATION_JSON_VERSIONS)[number]

/** JSON whose objects have an order. */
type Json = string | number | boolean | null | readonly Json[] | ReadonlyMap<string, Json> | Raw
type Raw = { readonly rawJSON: string }

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * `derivations`, each at its path, as JSON.
 *
 * @throws {NixError} DRV_JSON – what the version cannot say, or could not be read back: a name that is not that of the
 * path, other bytes than UTF-8, dynamic inputs in version 1, and in 3 and 4 structured attributes that are not
 * spelled as Nix does; DRV_OUTPUT_PATH – a fixed output at another path than that of its content address.
 */
export function formatDerivationJson(
  derivations: ReadonlyMap<StorePath, Derivation>,
  version: DerivationJsonVersion,
): string {
  const entries = [...derivations]
    .toSorted(([a], [b]) => byteOrder(a, b))
    .map(([path, derivation]) => [pathJson(path, version), describe(path, derivation, version)])
  const byPath = new Map(entries as [string, Json][])
  const document = version === 4 ? record({ derivations: byPath, version }, version) : byPath
  return `${print(document, '', version)}\n`
}

function describe(path: StorePath, derivation: Derivation, version: DerivationJsonVersion): Json {
  const { name, outputs, inputDerivations, dynamicInputs, inputSources, env } = derivation
  if (name !== derivationName(path))
    throw wrong(path, `the name ${quote(derivationName(path))}, got ${quote(name)}`)
  const text = (bytes: string): string => decode(path, bytes)
  const srcs = inputSources.map((source) => pathJson(source, version))
  const drvs = new Map(
    Array.from(inputDerivations, ([input, names]): [string, Json] => {
      const dynamicOutputs = dynamicInputs?.get(input)
      if (version > 1)
        return [
          pathJson(input, version),
          usedJson({ outputs: names, ...(dynamicOutputs && { dynamicOutputs }) }),
        ]
      if (dynamicOutputs !== undefined)
        throw wrong(path, 'no dynamic inputs, which version 1 does not have')
      return [pathJson(input, version), names]
    }),
  )
  const structured = version > 2 ? env.get(STRUCTURED_ATTRIBUTES) : undefined
  const variables = [...env].filter(
    ([key]) => structured === undefined || key !== STRUCTURED_ATTRIBUTES,
  )
  return record(
    {
      outputs: new Map(
        Array.from(outputs, ([key, output]) => [key, outputJson(output, name, version)]),
      ),
      ...(version === 4
        ? { inputs: record({ drvs, srcs }, version) }
        : { inputSrcs: srcs, inputDrvs: drvs }),
      system: text(derivation.platform),
      builder: text(derivation.builder),
      args: derivation.args.map(text),
      env: new Map(variables.map(([key, value]) => [text(key), text(value)])),
      ...(version > 1 && { name }),
      ...(version > 2 && { version }),
      ...(structured !== undefined && {
        structuredAttrs: structuredJson(path, text(structured), version),
      }),
    },
    version,
  )
}

function usedJson({ outputs, dynamicOutputs = new Map<string, UsedOutputs>() }: UsedOutputs): Json {
  const nested = Array.from(dynamicOutputs, ([name, used]) => [name, usedJson(used)] as const)
  return new Map<string, Json>([
    ['dynamicOutputs', new Map(nested)],
    ['outputs', outputs],
  ])
}

function outputJson(output: DerivationOutput, name: string, version: DerivationJsonVersion): Json {
  switch (output.kind) {
    case 'deferred':
      return new Map()
    case 'input-addressed':
      return new Map([['path', pathJson(output.path, version)]])
    case 'floating':
      return record(addressing(output, version), version)
    case 'impure':
      return record({ ...addressing(output, version), impure: true }, version)
    case 'fixed': {
      checkFixedPath(output, name)
      const { method, hash } = output.address
      if (version === 4) return record({ hash: formatHash(hash, 'sri'), method }, version)
      return record(
        {
          path: pathJson(output.path, version),
          ...addressing({ method, algorithm: hash.algorithm }, version),
          hash: formatHashDigits(hash.digest, 'base16'),
        },
        version,
      )
    }
  }
}

function addressing(
  { method, algorithm }: Pick<DerivationOutput & { kind: 'floating' }, 'method' | 'algorithm'>,
  version: DerivationJsonVersion,
): Record<string, Json> {
  if (version === 1) return { hashAlgo: formatMethodAndAlgorithm(method, algorithm) }
  return { hashAlgo: algorithm, method }
}

/** Printed again, as Nix does; so they must be what comes of it, or the derivation would be another. */
function structuredJson(path: StorePath, text: string, version: DerivationJsonVersion): Json {
  try {
    parseStrictJson(Buffer.from(text), Number.POSITIVE_INFINITY, {
      maxDepth: STRICT_JSON_MAX_DEPTH - (version === 4 ? 3 : 2), // what stands around it
      wideIntegers: true,
    })
  } catch (cause) {
    if (!(cause instanceof NixError)) throw cause
    throw wrong(path, `structured attributes that can be read: ${cause.message}`, cause)
  }
  const value = parseKeepingNumbers(text)
  if (!text.startsWith('{') || printStructured(value) !== text)
    throw wrong(path, 'structured attributes as Nix spells them')
  return ordered(value)
}

function ordered(value: unknown): Json {
  if (Array.isArray(value)) return value.map(ordered)
  if (value === null || typeof value !== 'object' || isRawJson(value)) return value as Json
  return new Map(byKey(value).map(([key, member]) => [key, ordered(member)]))
}

/** Version 1 has its fields in the order in which they are given. */
function record(fields: Readonly<Record<string, Json>>, version: DerivationJsonVersion): Json {
  const entries = Object.entries(fields)
  return new Map(version === 1 ? entries : entries.toSorted(([a], [b]) => byteOrder(a, b)))
}

function pathJson(path: StorePath, version: DerivationJsonVersion): string {
  return version < 3 ? path : storePathBase(path)
}

function decode(path: StorePath, bytes: string): string {
  try {
    return utf8.decode(Buffer.from(bytes, 'latin1'))
  } catch (cause) {
    throw wrong(path, 'UTF-8', cause)
  }
}

function print(value: Json, indent: string, version: DerivationJsonVersion): string {
  const inner = `${indent}  `
  const block = (open: string, members: readonly string[], close: string): string =>
    members.length === 0
      ? `${open}${close}`
      : `${open}\n${inner}${members.join(`,\n${inner}`)}\n${indent}${close}`
  if (Array.isArray(value))
    return block(
      '[',
      value.map((one: Json) => print(one, inner, version)),
      ']',
    )
  if (value instanceof Map) {
    const members = Array.from(
      value as ReadonlyMap<string, Json>,
      ([key, one]) => `${printText(key, version)}: ${print(one, inner, version)}`,
    )
    return block('{', members, '}')
  }
  return typeof value === 'string' ? printText(value, version) : JSON.stringify(value)
}

function printText(text: string, version: DerivationJsonVersion): string {
  const quoted = JSON.stringify(text)
  if (version > 1 || !/[\b\f]/.test(text)) return quoted
  return quoted.replace(/\\./g, (two) =>
    two === '\\b' ? '\\u0008' : two === '\\f' ? '\\u000c' : two,
  )
}

function wrong(path: StorePath, expected: string, cause?: unknown): NixError {
  return new NixError('DRV_JSON', `expected ${expected} in ${quote(path)}`, {
    cause,
    detail: { path },
  })
}
