// What `nix derivation show` prints (`nix show-derivation` before 2.19), by the version that Nix's manual counts:
//   1  2.8 to 2.23    { path: { outputs, inputSrcs, inputDrvs: { path: [output] }, system, builder, args, env } }
//                     fixed outputs as { path, hashAlgo: "r:sha256", hash: base16 }
//                     since 2.19 with name, and inputDrvs: { path: { outputs: [output], dynamicOutputs: {} } }
//   2  2.24 to 2.31   as the last, with { path, method: "nar", hashAlgo: "sha256", hash: base16 }
//   3  2.32           as 2, with version: 3 and base names instead of paths
//   4  2.33 and later { version: 4, derivations: { base: { version: 4, inputs: { srcs, drvs }, … } } }
//                     fixed outputs as { method, hash: SRI }
// 1 and 2 carry no number, and what belongs to either is taken in both; 3 and 4 are read as their number says. Since 2.31
// structuredAttrs stand beside env. Lists come in any order here. JSON is text, so a
// derivation that holds other bytes than UTF-8 has no JSON. The result is what the .drv says only if its path
// recomputes, which `derivationGraph` checks. `format-json.ts` prints.
// https://nix.dev/manual/nix/latest/protocols/json/derivation/
import {
  contentAddressedPath,
  formatContentAddress,
  formatMethodAndAlgorithm,
  parseContentAddress,
  parseMethodAndAlgorithm,
} from '../content-address.ts'
import type { ContentAddress, IngestionMethod } from '../content-address.ts'
import { NixError, quote } from '../error.ts'
import { parseHash, parseHashAlgorithm, parseHashDigits } from '../hash.ts'
import type { NixHash } from '../hash.ts'
import { derivationName, outputPathName } from '../output-path.ts'
import { parseStrictJson } from '../strict-json.ts'
import { byteOrder, parseStorePath, parseStorePathBase } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import { checkOutputName } from './aterm.ts'
import {
  checkOutputs,
  DYNAMIC_OUTPUTS_MAX_DEPTH,
  encodeByteString,
  STRUCTURED_ATTRIBUTES,
} from './derivation.ts'
import type { Derivation, DerivationOutput, DynamicOutputs, UsedOutputs } from './derivation.ts'
import { isRawJson, parseKeepingNumbers, printStructured } from './structured.ts'

/** The longest derivation JSON that is read, in bytes. */
export const DERIVATION_JSON_MAX_BYTES: number = 256 << 20

type Fields = Readonly<Record<string, unknown>>

const METHODS: readonly string[] = ['flat', 'nar', 'git', 'text'] satisfies IngestionMethod[]

/**
 * Parses derivation JSON, by path.
 *
 * @throws {NixError} DRV_JSON – of an unknown version, or a field is not what it must be; JSON_LIMIT,
 * JSON_SYNTAX, JSON_DUPLICATE_KEY; DRV_OUTPUT, STORE_PATH, HASH, CONTENT_ADDRESS – in a field.
 */
export function parseDerivationJson(bytes: Uint8Array): Map<StorePath, Derivation> {
  const outer = object(parseJson(bytes), 'derivations by path')
  const wrapped = 'derivations' in outer
  if (wrapped) {
    refuseOthers(outer, ['version', 'derivations'])
    if (number(outer['version']) !== 4) throw unknownVersion(outer['version'])
  }
  const entries = Object.entries(wrapped ? object(outer['derivations'], 'derivations') : outer)
  const derivations = new Map<StorePath, Derivation>()
  for (const [key, value] of entries) {
    const fields = object(value, 'a derivation')
    const version = findVersion(fields, wrapped)
    const path = parsePath(key, version)
    derivations.set(path, parseOne(path, fields, version))
  }
  return derivations
}

/** 2 stands for 1 too. */
type Version = 2 | 3 | 4

function findVersion(fields: Fields, wrapped: boolean): Version {
  const version = fields['version']
  if (wrapped ? number(version) === 4 : version === undefined) return wrapped ? 4 : 2
  if (!wrapped && number(version) === 3) return 3
  throw unknownVersion(version)
}

function parseOne(path: StorePath, fields: Fields, version: Version): Derivation {
  refuseOthers(fields, [
    ...['name', 'outputs', 'system', 'builder', 'args', 'env', 'structuredAttrs'],
    ...(version === 2 ? [] : ['version']),
    ...(version === 4 ? ['inputs'] : ['inputSrcs', 'inputDrvs']),
  ])
  const name = derivationName(path)
  if ((version > 2 || 'name' in fields) && fields['name'] !== name)
    throw wrong(`the name ${quote(name)}`, fields['name'])
  const inputs = version === 4 ? object(fields['inputs'], 'inputs') : undefined
  if (inputs !== undefined) refuseOthers(inputs, ['srcs', 'drvs'])
  const outputs = sorted(object(fields['outputs'], 'outputs'), (output, key) => {
    checkOutputName(key)
    return parseOutput(object(output, 'an output'), outputPathName(name, key), version)
  })
  checkOutputs(outputs)
  const drvs = object(inputs ? inputs['drvs'] : fields['inputDrvs'], 'input derivations')
  const used = Object.entries(drvs)
    .map(([key, value]) => [parsePath(key, version), parseUsed(value)] as const)
    .toSorted(([a], [b]) => byteOrder(a, b))
  const dynamicInputs = used.flatMap(([input, { dynamicOutputs }]) =>
    dynamicOutputs === undefined ? [] : [[input, dynamicOutputs] as const],
  )
  return {
    name,
    outputs,
    inputDerivations: new Map(used.map(([input, { outputs }]) => [input, outputs])),
    ...(dynamicInputs.length > 0 && { dynamicInputs: new Map(dynamicInputs) }),
    inputSources: set(inputs ? inputs['srcs'] : fields['inputSrcs'])
      .map((source) => parsePath(source, version))
      .toSorted(byteOrder),
    platform: byteString(fields['system']),
    builder: byteString(fields['builder']),
    args: array(fields['args']).map(byteString),
    env: parseEnvironment(fields),
  }
}

function parseUsed(value: unknown, depth = 0): UsedOutputs {
  const fields = Array.isArray(value)
    ? { outputs: value as unknown, dynamicOutputs: {} }
    : object(value, 'names of outputs')
  refuseOthers(fields, ['outputs', 'dynamicOutputs'])
  const outputs = set(fields['outputs']).toSorted(byteOrder)
  for (const name of outputs) checkOutputName(name)
  const nested = object(fields['dynamicOutputs'], 'dynamic outputs')
  if (Object.keys(nested).length === 0) {
    if (outputs.length === 0) throw wrong('at least one output of an input', value)
    return { outputs }
  }
  if (depth === DYNAMIC_OUTPUTS_MAX_DEPTH)
    throw new NixError('DRV_LIMIT', `expected at most ${depth} levels of dynamic outputs`)
  const dynamicOutputs: DynamicOutputs = sorted(nested, (one, name) => {
    checkOutputName(name)
    return parseUsed(one, depth + 1)
  })
  return { outputs, dynamicOutputs }
}

function parseEnvironment(fields: Fields): Map<string, string> {
  const env = sorted(object(fields['env'], 'an environment'), byteString, byteString)
  const structured = fields['structuredAttrs']
  if (structured === undefined) return env
  if (env.has(STRUCTURED_ATTRIBUTES)) throw wrong('structured attributes once', 'twice')
  const text = printStructured(object(structured, 'structured attributes'))
  const all = [...env, [STRUCTURED_ATTRIBUTES, encodeByteString(text)] as const]
  return new Map(all.toSorted(([a], [b]) => byteOrder(a, b)))
}

function parseOutput(fields: Fields, pathName: string, version: Version): DerivationOutput {
  const { path, method, hashAlgo, hash } = fields
  const kind = Object.keys(fields).toSorted().join(' ')
  switch (kind) {
    case '':
      return { kind: 'deferred' }
    case 'path':
      return { kind: 'input-addressed', path: parsePath(path, version) }
    case 'hashAlgo':
    case 'hashAlgo method':
      return { kind: 'floating', ...parseAddressing(fields, version) }
    case 'hashAlgo impure':
    case 'hashAlgo impure method':
      if (fields['impure'] !== true) throw wrong('impure: true', fields['impure'])
      return { kind: 'impure', ...parseAddressing(fields, version) }
    case 'hash method':
      if (version === 4)
        return fixedOutput({ method: parseMethod(method), hash: parseSri(hash) }, pathName)
      break
    case 'hash hashAlgo path':
    case 'hash hashAlgo method path':
      if (version < 4) {
        const addressing = parseAddressing({ method, hashAlgo }, version)
        const digest = parseHashDigits(addressing.algorithm, string(hash), 'base16')
        const address = { ...addressing, hash: { algorithm: addressing.algorithm, digest } }
        const output = fixedOutput({ method: address.method, hash: address.hash }, pathName)
        if (parsePath(path, version) === output.path) return output
        throw wrong(quote(output.path), path)
      }
  }
  throw wrong('an output of a kind that exists', fields)
}

function fixedOutput(
  address: ContentAddress,
  pathName: string,
): DerivationOutput & { kind: 'fixed' } {
  // Through the parser, which knows what goes with which method.
  const { method, hash } = parseContentAddress(formatContentAddress(address))
  return {
    kind: 'fixed',
    path: contentAddressedPath(pathName, { method, hash }),
    address: { method, hash },
  }
}

function parseSri(value: unknown): NixHash {
  const text = string(value)
  if (!text.includes('-')) throw wrong('a hash as SRI', value)
  return parseHash(text)
}

function parseAddressing({ method, hashAlgo }: Fields, version: Version) {
  if (method === undefined && version === 2) return parseMethodAndAlgorithm(string(hashAlgo))
  const parsed = parseMethod(method)
  const algorithm = parseHashAlgorithm(string(hashAlgo))
  return parseMethodAndAlgorithm(formatMethodAndAlgorithm(parsed, algorithm))
}

function parseMethod(value: unknown): IngestionMethod {
  const method = string(value)
  if (!METHODS.includes(method)) throw wrong('flat, nar, git or text', value)
  return method as IngestionMethod
}

function parsePath(value: unknown, version: Version): StorePath {
  const text = string(value)
  return version === 2 ? parseStorePath(text) : parseStorePathBase(text)
}

function parseJson(bytes: Uint8Array): unknown {
  const value = parseStrictJson(bytes, DERIVATION_JSON_MAX_BYTES, { wideIntegers: true })
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8')
  // Structured attributes are printed again, so their numbers keep the spelling that Nix gave them.
  return text.includes('"structuredAttrs"') ? parseKeepingNumbers(text) : value
}

function sorted<T>(
  fields: Fields,
  parse: (value: unknown, key: string) => T,
  parseKey: (key: string) => string = (key) => key,
): Map<string, T> {
  return new Map(
    Object.entries(fields)
      .map(([key, value]) => [parseKey(key), parse(value, key)] as const)
      .toSorted(([a], [b]) => byteOrder(a, b)),
  )
}

function object(value: unknown, what: string): Fields {
  if (value === null || typeof value !== 'object' || Array.isArray(value) || isRawJson(value))
    throw wrong(`an object (${what})`, value)
  return value as Fields
}

function array(value: unknown): readonly unknown[] {
  if (!Array.isArray(value)) throw wrong('a list', value)
  return value
}

function set(value: unknown): string[] {
  const strings = array(value).map(string)
  if (new Set(strings).size !== strings.length) throw wrong('a list without repetition', value)
  return strings
}

function string(value: unknown): string {
  if (typeof value !== 'string') throw wrong('a string', value)
  return value
}

function number(value: unknown): number {
  const plain = isRawJson(value) ? Number(value.rawJSON) : value
  if (typeof plain !== 'number') throw wrong('a number', value)
  return plain
}

function byteString(value: unknown): string {
  const text = string(value)
  if (text.includes('\0')) throw wrong('text without NUL', value)
  return encodeByteString(text)
}

function refuseOthers(fields: Fields, known: readonly string[]): void {
  const other = Object.keys(fields).find((key) => !known.includes(key))
  if (other !== undefined) throw wrong(`no key but ${known.join(', ')}`, other)
}

function unknownVersion(seen: unknown): NixError {
  return wrong('derivation JSON of version 1 to 4', seen)
}

function wrong(expected: string, seen: unknown): NixError {
  return new NixError('DRV_JSON', `expected ${expected}, got ${quote(JSON.stringify(seen) ?? '')}`)
}
