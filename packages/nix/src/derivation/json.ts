// What `nix derivation show` prints (`nix show-derivation` before 2.19), in every form of released Nix:
//   1  2.8 to 2.19    { path: { outputs, inputSrcs, inputDrvs: { path: [output] }, system, builder, args, env } }
//                     fixed outputs as { path, hashAlgo: "r:sha256", hash: base16 }
//   2  2.19 to 2.31   as 1, with name, and inputDrvs: { path: { outputs: [output], dynamicOutputs: {} } };
//                     later { path, method: "nar", hashAlgo: "sha256", hash }
//   3  2.32           as 2, with version: 3 and base names instead of paths; structuredAttrs may stand beside env
//   4  2.33 and later { version: 4, derivations: { base: { version: 4, inputs: { srcs, drvs }, … } } };
//                     fixed outputs as { method, hash: SRI }
// 1 and 2 carry no number and are told apart by their fields. Lists come in any order here. JSON is text, so a
// derivation that holds other bytes than UTF-8 has no JSON. The result is what the .drv says only if its path
// recomputes, which `derivationGraph` checks.
// https://github.com/NixOS/nix/blob/master/src/libstore/derivation/json.cc
import { contentAddressedPath, parseMethodAndAlgorithm } from '../content-address.ts'
import type { ContentAddress, IngestionMethod } from '../content-address.ts'
import { NixError, quote } from '../error.ts'
import { parseHash, parseHashAlgorithm, parseHashDigits } from '../hash.ts'
import type { HashEncoding } from '../hash.ts'
import { derivationName, outputPathName } from '../output-path.ts'
import { parseStrictJson } from '../strict-json.ts'
import { byteOrder, parseStorePath, parseStorePathBase } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import { checkOutputName } from './aterm.ts'
import { checkOutputs, encodeByteString, STRUCTURED_ATTRIBUTES } from './derivation.ts'
import type { Derivation, DerivationOutput } from './derivation.ts'

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
  return new Map(
    entries.map(([key, value]) => {
      const path = parsePath(key)
      return [path, parseOne(path, object(value, 'a derivation'))]
    }),
  )
}

function parseOne(path: StorePath, fields: Fields): Derivation {
  const version = fields['version'] === undefined ? 2 : number(fields['version'])
  if (![2, 3, 4].includes(version)) throw unknownVersion(fields['version'])
  const common = [
    'name',
    'version',
    'outputs',
    'system',
    'builder',
    'args',
    'env',
    'structuredAttrs',
  ]
  refuseOthers(fields, [...common, ...(version === 4 ? ['inputs'] : ['inputSrcs', 'inputDrvs'])])
  const name = derivationName(path)
  if ('name' in fields && fields['name'] !== name)
    throw wrong(`the name ${quote(name)}`, fields['name'])
  const inputs = version === 4 ? object(fields['inputs'], 'inputs') : undefined
  if (inputs !== undefined) refuseOthers(inputs, ['srcs', 'drvs'])
  const outputs = sorted(object(fields['outputs'], 'outputs'), (output, key) => {
    checkOutputName(key)
    return parseOutput(object(output, 'an output'), outputPathName(name, key))
  })
  checkOutputs(outputs)
  const drvs = object(inputs ? inputs['drvs'] : fields['inputDrvs'], 'input derivations')
  return {
    name,
    outputs,
    inputDerivations: new Map(
      Object.entries(drvs)
        .map(([key, value]) => [parsePath(key), parseNames(value)] as const)
        .toSorted(([a], [b]) => byteOrder(a, b)),
    ),
    inputSources: set(inputs ? inputs['srcs'] : fields['inputSrcs'])
      .map(parsePath)
      .toSorted(byteOrder),
    platform: byteString(fields['system']),
    builder: byteString(fields['builder']),
    args: array(fields['args']).map(byteString),
    env: parseEnvironment(fields),
  }
}

function parseNames(value: unknown): string[] {
  let names = value
  if (!Array.isArray(value)) {
    const fields = object(value, 'names of outputs')
    refuseOthers(fields, ['outputs', 'dynamicOutputs'])
    if (Object.keys(object(fields['dynamicOutputs'], 'dynamic outputs')).length > 0)
      throw new NixError('DRV_VERSION', 'expected no dynamic outputs, which are not supported')
    names = fields['outputs']
  }
  const sortedNames = set(names).toSorted(byteOrder)
  if (sortedNames.length === 0) throw wrong('at least one output of an input', names)
  for (const name of sortedNames) checkOutputName(name)
  return sortedNames
}

function parseEnvironment(fields: Fields): Map<string, string> {
  const env = sorted(object(fields['env'], 'an environment'), byteString, encodeByteString)
  const structured = fields['structuredAttrs']
  if (structured === undefined) return env
  if (env.has(STRUCTURED_ATTRIBUTES)) throw wrong('structured attributes once', 'twice')
  const text = printSorted(object(structured, 'structured attributes'))
  const all = [...env, [STRUCTURED_ATTRIBUTES, encodeByteString(text)] as const]
  return new Map(all.toSorted(([a], [b]) => byteOrder(a, b)))
}

function parseOutput(fields: Fields, pathName: string): DerivationOutput {
  refuseOthers(fields, ['path', 'method', 'hashAlgo', 'hash', 'impure'])
  const { path, hash, impure } = fields
  if (hash !== undefined && impure === undefined) {
    const address = parseAddress(fields)
    const computed = contentAddressedPath(pathName, address)
    if (path !== undefined && parsePath(path) !== computed) throw wrong(quote(computed), path)
    return { kind: 'fixed', path: computed, address }
  }
  if (hash === undefined && path === undefined && fields['hashAlgo'] !== undefined) {
    if (impure !== undefined && impure !== true) throw wrong('impure: true', impure)
    return { kind: impure === true ? 'impure' : 'floating', ...parseAddressing(fields) }
  }
  if (Object.keys(fields).length === 0) return { kind: 'deferred' }
  if (Object.keys(fields).join() === 'path')
    return { kind: 'input-addressed', path: parsePath(path) }
  throw wrong('an output of a kind that exists', fields)
}

function parseAddress(fields: Fields): ContentAddress {
  const { hash, hashAlgo, method } = fields
  if (hashAlgo !== undefined) {
    const { method, algorithm } = parseAddressing(fields)
    const digest = parseHashDigits(algorithm, string(hash), 'base16')
    return { method, hash: { algorithm, digest } }
  }
  if (typeof hash === 'string') return { method: parseMethod(method), hash: parseHash(hash) }
  // Development versions of 2.33 wrote this out.
  const parts = object(hash, 'a hash')
  refuseOthers(parts, ['algorithm', 'format', 'hash'])
  const algorithm = parseHashAlgorithm(string(parts['algorithm']))
  const digest = parseHashDigits(
    algorithm,
    string(parts['hash']),
    string(parts['format']) as HashEncoding, // another word is no encoding that the digits have
  )
  return { method: parseMethod(method), hash: { algorithm, digest } }
}

function parseAddressing({ method, hashAlgo }: Fields) {
  if (method === undefined) return parseMethodAndAlgorithm(string(hashAlgo))
  return { method: parseMethod(method), algorithm: parseHashAlgorithm(string(hashAlgo)) }
}

function parseMethod(value: unknown): IngestionMethod {
  const method = string(value)
  if (!METHODS.includes(method)) throw wrong('flat, nar, git or text', value)
  return method as IngestionMethod
}

function parsePath(value: unknown): StorePath {
  const text = string(value)
  return text.startsWith('/') ? parseStorePath(text) : parseStorePathBase(text)
}

function parseJson(bytes: Uint8Array): unknown {
  const value = parseStrictJson(bytes, DERIVATION_JSON_MAX_BYTES)
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('utf8')
  if (!text.includes('"structuredAttrs"')) return value
  // Structured attributes are printed again, so their numbers keep the spelling that Nix gave them.
  return JSON.parse(text, (_, one: unknown, context?: { source?: string }) =>
    typeof one === 'number' ? rawJSON(context?.source ?? `${one}`) : one,
  )
}

/** `JSON.rawJSON` of ECMAScript 2026, which TypeScript does not declare yet. */
const { rawJSON, isRawJSON } = JSON as unknown as {
  rawJSON(text: string): { readonly rawJSON: string }
  isRawJSON(value: unknown): value is { readonly rawJSON: string }
}

/** As Nix prints it: no white space, keys in byte order. */
function printSorted(value: unknown): string {
  if (isRawJSON(value) || value === null || typeof value !== 'object') return JSON.stringify(value)
  if (Array.isArray(value)) return `[${value.map(printSorted).join(',')}]`
  const members = Object.entries(value)
    .map(([key, member]) => [encodeByteString(key), key, member] as const)
    .toSorted(([a], [b]) => byteOrder(a, b))
  return `{${members.map(([, key, one]) => `${JSON.stringify(key)}:${printSorted(one)}`).join(',')}}`
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
  if (value === null || typeof value !== 'object' || Array.isArray(value) || isRawJSON(value))
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
  const plain = isRawJSON(value) ? Number(value.rawJSON) : value
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
