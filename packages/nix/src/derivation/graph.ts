// All derivations that one or more derivations are built from. A derivation's path commits to its text and, by
// the paths in it, to everything below: once each text was checked against its path, the root paths alone say
// what the whole graph is, wherever the files came from.
import { closeSync, constants, fstatSync, openSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { textPath } from '../content-address.ts'
import { NixError, quote } from '../error.ts'
import { derivationName } from '../output-path.ts'
import { STORE_DIR, storePathBase } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import { DERIVATION_MAX_BYTES, formatDerivation, parseDerivation } from './aterm.ts'
import { refuseDynamicInputs } from './derivation.ts'
import type { Derivation } from './derivation.ts'

/** A closed set of derivations without cycles, none of which has dynamic inputs: its paths are all computable. */
export interface DerivationGraph {
  readonly roots: readonly StorePath[]
  /** Every derivation that a root needs, and the roots; inputs before what uses them. */
  readonly derivations: ReadonlyMap<StorePath, Derivation>
}

/** Reads the text of a derivation; rejects when there is none. */
export type DerivationReader = (path: StorePath) => Promise<Uint8Array>

/** Bounds on what {@link loadDerivationGraph} reads. */
export interface DerivationGraphOptions {
  /** Default 1,000,000. */
  readonly maxDerivations?: number
  /** Of all texts together. Default 2 GiB. */
  readonly maxBytes?: number
  readonly signal?: AbortSignal
}

const IN_FLIGHT = 32

/**
 * Reads derivations from a store directory, such as `/nix/store` or that of a mounted image.
 *
 * The reader throws {@link NixError} DRV_READ where the file cannot be read.
 */
export function storeDirectoryReader(directory: string = STORE_DIR): DerivationReader {
  return async (path) => {
    const file = join(directory, storePathBase(path))
    try {
      return readBounded(file)
    } catch (cause) {
      if (cause instanceof NixError) throw cause
      const reason = (cause as NodeJS.ErrnoException).code ?? (cause as Error).message
      throw new NixError('DRV_READ', `expected a derivation at ${quote(file)}: ${reason}`, {
        cause,
        detail: { path },
      })
    }
  }
}

/** Synchronous: the files are small and cached, and the thread pool costs several times what reading does. */
function readBounded(file: string): Uint8Array {
  // A symbolic link, or a named pipe on which to wait for ever, is no derivation.
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants
  const descriptor = openSync(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
  try {
    const stats = fstatSync(descriptor)
    if (!stats.isFile()) throw new Error('not a regular file')
    if (stats.size > DERIVATION_MAX_BYTES)
      throw new NixError(
        'DRV_LIMIT',
        `expected at most ${DERIVATION_MAX_BYTES} bytes, got ${stats.size} in ${quote(file)}`,
      )
    return readFileSync(descriptor)
  } finally {
    closeSync(descriptor)
  }
}

/**
 * Loads `roots` and every derivation they are built from. Each text is checked against its path.
 *
 * @throws {NixError} DRV_PATH – a text is not the one its path stands for; DRV_INPUT – an output is used that
 * the derivation does not have; DRV_DYNAMIC – one has dynamic inputs; DRV_LIMIT; whatever `read` and {@link parseDerivation} throw.
 */
export async function loadDerivationGraph(
  roots: readonly StorePath[],
  read: DerivationReader,
  { maxDerivations = 1_000_000, maxBytes = 2 ** 31, signal }: DerivationGraphOptions = {},
): Promise<DerivationGraph> {
  const found = new Map<StorePath, Derivation>()
  const queue = [...new Set(roots)]
  const known = new Set(queue)
  let bytes = 0
  for (let start = 0; start < queue.length;) {
    signal?.throwIfAborted()
    const batch = queue.slice(start, start + IN_FLIGHT)
    start += batch.length
    const texts = await Promise.all(batch.map(read))
    for (const [index, path] of batch.entries()) {
      const text = texts[index] as Uint8Array // as many as paths
      bytes += text.length
      const derivation = parseAt(path, text)
      found.set(path, derivation)
      for (const input of derivation.inputDerivations.keys()) {
        if (known.has(input)) continue
        known.add(input)
        queue.push(input)
      }
    }
    if (bytes > maxBytes || known.size > maxDerivations)
      throw new NixError(
        'DRV_LIMIT',
        `expected at most ${maxDerivations} derivations of ${maxBytes} bytes together`,
      )
  }
  return makeDerivationGraph(roots, found)
}

/**
 * The graph of derivations that were read otherwise, such as from JSON; texts are checked against paths here too.
 * Derivations that no root needs are left out.
 *
 * @throws {NixError} DRV_PATH, DRV_INPUT, DRV_DYNAMIC; DRV_READ – a derivation is missing.
 */
export function derivationGraph(
  roots: readonly StorePath[],
  derivations: ReadonlyMap<StorePath, Derivation>,
): DerivationGraph {
  const graph = makeDerivationGraph(roots, derivations)
  for (const [path, derivation] of graph.derivations) {
    checkPath(path, derivation, formatDerivation(derivation))
    refuseDynamicInputs(derivation)
  }
  return graph
}

/**
 * The path at which `derivation` lies in the store.
 *
 * @throws {NixError} STORE_PATH – its name is not legal.
 */
export function derivationPath(derivation: Derivation): StorePath {
  return pathOfText(derivation, formatDerivation(derivation))
}

function parseAt(path: StorePath, text: Uint8Array): Derivation {
  try {
    const derivation = parseDerivation(text, derivationName(path))
    checkPath(path, derivation, text)
    refuseDynamicInputs(derivation)
    return derivation
  } catch (error) {
    if (!(error instanceof NixError) || error.code === 'DRV_PATH') throw error
    throw new NixError(error.code, `${path}: ${error.message}`, {
      cause: error,
      detail: { ...error.detail, path },
    })
  }
}

function checkPath(path: StorePath, derivation: Derivation, text: Uint8Array): void {
  const computed = pathOfText(derivation, text)
  if (computed !== path)
    throw new NixError(
      'DRV_PATH',
      `expected the derivation at ${quote(path)}, got the text of ${quote(computed)}`,
      { detail: { path, computed } },
    )
}

function pathOfText({ name, inputDerivations, inputSources }: Derivation, text: Uint8Array) {
  return textPath(`${name}.drv`, text, [...inputDerivations.keys(), ...inputSources])
}

/** Depth first without recursion: chains of derivations are longer than any call stack. */
function makeDerivationGraph(
  roots: readonly StorePath[],
  known: ReadonlyMap<StorePath, Derivation>,
): DerivationGraph {
  const done = new Map<StorePath, Derivation>()
  const open = new Set<StorePath>()
  const stack: { path: StorePath; derivation: Derivation; inputs: Iterator<StorePath> }[] = []
  const enter = (path: StorePath): void => {
    const derivation = known.get(path)
    if (derivation === undefined)
      throw new NixError('DRV_READ', `expected the derivation ${quote(path)}, got none`, {
        detail: { path },
      })
    open.add(path)
    stack.push({ path, derivation, inputs: derivation.inputDerivations.keys() })
  }
  for (const root of roots) {
    if (!done.has(root)) enter(root)
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const next = top.inputs.next()
      if (next.done !== true) {
        // No text can be found whose hash is in a text it refers to; checked all the same.
        if (open.has(next.value))
          throw new NixError('DRV_CYCLE', `expected no cycle, got one through ${quote(next.value)}`)
        if (!done.has(next.value)) enter(next.value)
        continue
      }
      checkInputs(top.path, top.derivation, done)
      done.set(top.path, top.derivation)
      open.delete(top.path)
      stack.pop()
    }
  }
  return { roots: [...new Set(roots)], derivations: done }
}

function checkInputs(
  path: StorePath,
  { inputDerivations }: Derivation,
  known: ReadonlyMap<StorePath, Derivation>,
): void {
  for (const [input, names] of inputDerivations)
    for (const name of names)
      if (known.get(input)?.outputs.has(name) !== true)
        throw new NixError(
          'DRV_INPUT',
          `expected ${quote(input)} to have the output ${quote(name)} that ${quote(path)} uses`,
          { detail: { path, input, output: name } },
        )
}
