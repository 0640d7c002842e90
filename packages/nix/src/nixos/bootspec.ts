// boot.json, the bootspec of a NixOS system (RFC 0125): what its boot loader entry starts.
//
//   document = { "org.nixos.bootspec.v1": v1, "org.nixos.specialisation.v1"?: { NAME: document, … }, vendor… }
//   v1       = { "system", "label", "kernel", "kernelParams": [text…], "init", "toplevel",
//                "initrd"?, "initrdSecrets"? }
//
// Optional members are absent, never null. Other members of a document belong to their vendors and are
// kept as they are; other members of v1 are refused, because v1 is closed. All files are in the store, and
// `init` is in `toplevel`: a document for which that is not so describes no system that Nix built.
// https://github.com/NixOS/rfcs/blob/master/rfcs/0125-bootspec.md
import { NixError, quote } from '../error.ts'
import { parseStorePath, storePathOf } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import { describeJson, isJsonObject, parseStrictJson } from '../strict-json.ts'
import type { JsonObject } from '../strict-json.ts'

/** What one boot loader entry starts. Files are absolute and in the store. */
export interface Bootspec {
  /** Platform, such as `x86_64-linux`. */
  readonly system: string
  /** What the boot menu shows. */
  readonly label: string
  readonly kernel: string
  readonly kernelParams: readonly string[]
  readonly init: string
  readonly toplevel: StorePath
  /** Absent for a system that boots without one. */
  readonly initrd?: string
  /** A program that adds secrets to the initrd: what boots is then not what the closure holds. */
  readonly initrdSecrets?: string
  /** By name. */
  readonly specialisations: ReadonlyMap<string, Bootspec>
  /** Members of other namespaces, unjudged. */
  readonly vendors: ReadonlyMap<string, unknown>
}

/** Most bytes of a boot.json: a real one has 1 to 2 kB for each specialisation. */
export const BOOTSPEC_MAX_BYTES: number = 1 << 20

const V1 = 'org.nixos.bootspec.v1'
const SPECIALISATION = 'org.nixos.specialisation.v1'
const REQUIRED = ['system', 'label', 'kernel', 'kernelParams', 'init', 'toplevel']
const OPTIONAL = ['initrd', 'initrdSecrets']
const MAX_SPECIALISATIONS = 1000
// NixOS has one level: specialisations of specialisations are not evaluated.
const MAX_LEVELS = 4

/**
 * Parses a boot.json.
 *
 * @throws {NixError} BOOTSPEC – not a bootspec of version 1; JSON_SYNTAX, JSON_DUPLICATE_KEY, JSON_LIMIT
 */
export function parseBootspec(bytes: Uint8Array): Bootspec {
  return parseDocument('the document', parseStrictJson(bytes, BOOTSPEC_MAX_BYTES), 1)
}

/** The store paths that `bootspec` names, specialisations included, without duplicates. */
export function bootspecStorePaths(bootspec: Bootspec): StorePath[] {
  const { kernel, init, initrd, initrdSecrets, toplevel, specialisations } = bootspec
  const files = [kernel, init, initrd, initrdSecrets]
  const own = files.flatMap((file) => (file === undefined ? [] : (storePathOf(file) ?? [])))
  return [
    ...new Set([toplevel, ...own, ...[...specialisations.values()].flatMap(bootspecStorePaths)]),
  ]
}

function parseDocument(where: string, json: unknown, level: number): Bootspec {
  if (!isJsonObject(json)) throw bootspecError(where, 'an object', json)
  const { [V1]: v1, [SPECIALISATION]: children = {}, ...vendors } = json
  if (!isJsonObject(v1)) throw bootspecError(`${quote(V1)} of ${where}`, 'an object', v1)
  if (!isJsonObject(children))
    throw bootspecError(`${quote(SPECIALISATION)} of ${where}`, 'an object', children)
  const names = Object.keys(children)
  if (names.length > MAX_SPECIALISATIONS || (names.length > 0 && level === MAX_LEVELS))
    throw bootspecError(
      where,
      `of at most ${MAX_SPECIALISATIONS} and not in one another`,
      names.length,
    )
  const specialisations = new Map(
    names.map((name) => [
      name,
      parseDocument(`specialisation ${quote(name)}`, children[name], level + 1),
    ]),
  )
  return { ...parseV1(where, v1), specialisations, vendors: new Map(Object.entries(vendors)) }
}

function parseV1(where: string, v1: JsonObject): Omit<Bootspec, 'specialisations' | 'vendors'> {
  const other = Object.keys(v1).find((name) => !REQUIRED.includes(name) && !OPTIONAL.includes(name))
  if (other !== undefined) throw bootspecError(`${quote(V1)} of ${where}`, 'closed', other)
  const text = (name: string): string => {
    const value = v1[name]
    // Both end up on the kernel's command line or in a menu, line by line.
    if (typeof value === 'string' && value !== '' && !/[\0\n]/.test(value)) return value
    throw bootspecError(`${quote(name)} of ${where}`, 'one line of text', value)
  }
  const file = (name: string): string => {
    const value = text(name)
    if (storePathOf(value) !== undefined) return value
    throw bootspecError(`${quote(name)} of ${where}`, 'a file in the store', value)
  }
  const { kernelParams } = v1
  if (!isTextList(kernelParams))
    throw bootspecError(`"kernelParams" of ${where}`, 'a list of parameters', kernelParams)
  const toplevel = file('toplevel')
  const init = file('init')
  if (storePathOf(toplevel) !== toplevel)
    throw bootspecError(`"toplevel" of ${where}`, 'a store path', toplevel)
  if (storePathOf(init) !== toplevel)
    throw bootspecError(`"init" of ${where}`, `in ${toplevel}`, init)
  return {
    system: text('system'),
    label: text('label'),
    kernel: file('kernel'),
    kernelParams,
    init,
    toplevel: parseStorePath(toplevel),
    ...(v1['initrd'] === undefined ? {} : { initrd: file('initrd') }),
    ...(v1['initrdSecrets'] === undefined ? {} : { initrdSecrets: file('initrdSecrets') }),
  }
}

function isTextList(value: unknown): value is string[] {
  return (
    Array.isArray(value) && value.every((item) => typeof item === 'string' && !/[\0\n]/.test(item))
  )
}

function bootspecError(where: string, expected: string, seen: unknown): NixError {
  return new NixError('BOOTSPEC', `expected ${where} to be ${expected}, got ${describeJson(seen)}`)
}
