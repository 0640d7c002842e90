import { NixError, quote } from '../error.ts'
import type { HashAlgorithm } from '../hash.ts'
import { contentAddressedPath } from '../content-address.ts'
import type { ContentAddress, IngestionMethod } from '../content-address.ts'
import type { StorePath } from '../store-path.ts'

/**
 * What Nix builds: a program to run, its inputs, and where its outputs go.
 *
 * **Strings are byte strings**: `builder`, `platform`, arguments and the names and values of `env` hold one
 * byte in each code unit (Latin-1), because that is what Nix keeps and hashes; both UTF-8 and Latin-1 occur in
 * real derivations. Byte order is then JavaScript's order, and {@link formatDerivation} is exact. Before a value
 * is shown or compared with text that is not ASCII, it goes through {@link decodeByteString}.
 */
export interface Derivation {
  /** Not in the text: from the name of the `.drv` file. */
  readonly name: string
  /** By output name, in byte order; at least one. */
  readonly outputs: ReadonlyMap<string, DerivationOutput>
  /**
   * Output names that are used, in byte order, by derivation in byte order. At least one, unless the
   * derivation is in `dynamicInputs`.
   */
  readonly inputDerivations: ReadonlyMap<StorePath, readonly string[]>
  /**
   * What is used of derivations that are themselves built: by the input derivation, which is a key of
   * `inputDerivations` too. Absent where there is nothing. Experimental in Nix (`dynamic-derivations`).
   */
  readonly dynamicInputs?: ReadonlyMap<StorePath, DynamicOutputs>
  /** Store paths that are used as they are, in byte order. */
  readonly inputSources: readonly StorePath[]
  readonly platform: string
  readonly builder: string
  readonly args: readonly string[]
  /** In byte order of the names. */
  readonly env: ReadonlyMap<string, string>
}

/** By name of an output that is a derivation, in byte order and at least one: what is used of that derivation. */
export type DynamicOutputs = ReadonlyMap<string, UsedOutputs>

/** What is used of a derivation. */
export interface UsedOutputs {
  /** In byte order; at least one, unless there is something in `dynamicOutputs`. */
  readonly outputs: readonly string[]
  /** Of outputs that are derivations; absent where there is nothing. */
  readonly dynamicOutputs?: DynamicOutputs
}

/** One output of a derivation. All outputs of one derivation are of one kind. */
export type DerivationOutput =
  /** The path follows from the derivation. */
  | { readonly kind: 'input-addressed'; readonly path: StorePath }
  /** The content is known before the build, which therefore may use the network. */
  | { readonly kind: 'fixed'; readonly path: StorePath; readonly address: ContentAddress }
  /** Content-addressed: the path follows from what is built. Experimental in Nix. */
  | {
      readonly kind: 'floating'
      readonly method: IngestionMethod
      readonly algorithm: HashAlgorithm
    }
  /** Like `floating`, but built anew every time, with the network. Experimental in Nix. */
  | { readonly kind: 'impure'; readonly method: IngestionMethod; readonly algorithm: HashAlgorithm }
  /** Input-addressed, but an input is not known before it is built. */
  | { readonly kind: 'deferred' }

/** How the outputs of a derivation get their paths. */
export type DerivationKind = DerivationOutput['kind']

/** The kind that all outputs of `derivation` share. */
export function derivationKind(derivation: Derivation): DerivationKind {
  for (const output of derivation.outputs.values()) return output.kind
  throw new TypeError('a derivation has outputs')
}

/** The path of an output, where it is known before the build. */
export function outputPath(output: DerivationOutput): StorePath | undefined {
  return output.kind === 'input-addressed' || output.kind === 'fixed' ? output.path : undefined
}

/** Derivations that are outputs of outputs are followed this deep. */
export const DYNAMIC_OUTPUTS_MAX_DEPTH = 16

/**
 * Refuses to compute what follows from dynamic inputs: it is known only once they are built.
 *
 * @throws {NixError} DRV_DYNAMIC
 */
export function refuseDynamicInputs({ name, dynamicInputs }: Derivation): void {
  if (dynamicInputs === undefined) return
  throw new NixError(
    'DRV_DYNAMIC',
    `expected inputs that are known before the build, got dynamic ones of ${quote(name)}`,
  )
}

/** Where structured attributes stand in the environment. */
export const STRUCTURED_ATTRIBUTES = '__json'

const NOT_ASCII = /[\x80-\xff]/
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * A byte string as text: UTF-8 where it is UTF-8, Latin-1 otherwise. For people; not reversible.
 */
export function decodeByteString(bytes: string): string {
  if (!NOT_ASCII.test(bytes)) return bytes
  try {
    return utf8.decode(Buffer.from(bytes, 'latin1'))
  } catch {
    return bytes // not UTF-8
  }
}

/** Text as a byte string: its UTF-8. */
export function encodeByteString(text: string): string {
  return Buffer.from(text, 'utf8').toString('latin1')
}

/**
 * The rules on outputs that need no other derivation.
 *
 * @throws {NixError} DRV_OUTPUT – no outputs; outputs of several kinds; a fixed output beside another, or
 * not named `out`.
 */
export function checkOutputs(outputs: ReadonlyMap<string, DerivationOutput>): void {
  const kinds = new Set([...outputs.values()].map((output) => output.kind))
  if (kinds.size !== 1) {
    const seen = [...kinds].join(' and ') || 'none'
    throw new NixError('DRV_OUTPUT', `expected outputs of one kind, got ${seen}`)
  }
  if (kinds.has('fixed') && (outputs.size !== 1 || !outputs.has('out'))) {
    const names = [...outputs.keys()].join(' ')
    throw new NixError('DRV_OUTPUT', `expected one fixed output "out", got ${quote(names)}`)
  }
}

/**
 * The path of a fixed output repeats its content address and must agree with it.
 *
 * @param pathName the name of the output's path.
 * @throws {NixError} DRV_OUTPUT_PATH
 */
export function checkFixedPath(
  { path, address }: { readonly path: StorePath; readonly address: ContentAddress },
  pathName: string,
): void {
  const computed = contentAddressedPath(pathName, address)
  if (path !== computed)
    throw new NixError(
      'DRV_OUTPUT_PATH',
      `expected the fixed output at ${quote(computed)}, got ${quote(path)}`,
    )
}
