// Which node every input of a flake.lock leads to.
import { NixError, quote } from '../error.ts'
import type { FlakeLink } from './parse.ts'

type RawInputs = ReadonlyMap<string, string | readonly string[]>

// A follows path may lead through inputs that follow others. Real chains are a handful long.
const MAX_CHAIN = 256

/**
 * Resolves the inputs of all nodes.
 *
 * @param parents - by node key, the paths that also must lead to a node.
 * @throws {NixError} FLAKE_LOCK_INPUT – a key or path that leads to no node; FLAKE_LOCK_CYCLE – follows
 * that lead back to themselves, parents that do, nodes that contain themselves, the root as an input by
 * key; FLAKE_LOCK_LIMIT
 */
export function linkNodes(
  root: string,
  nodes: ReadonlyMap<string, RawInputs>,
  parents: ReadonlyMap<string, readonly string[]>,
): Map<string, Map<string, FlakeLink>> {
  const resolved = new Map<string, Map<string, string>>()
  for (const key of nodes.keys()) resolved.set(key, new Map())
  // Follows inputs under resolution, outermost first, each written as in an error message.
  const resolving = new Set<string>()

  const resolveInput = (key: string, name: string, input: string | readonly string[]): string => {
    const known = resolved.get(key)?.get(name)
    if (known !== undefined) return known
    const target = typeof input === 'string' ? input : follow(key, name, input)
    resolved.get(key)?.set(name, target)
    return target
  }

  const follow = (key: string, name: string, path: readonly string[]): string => {
    const label = `${quote(name)} of node ${quote(key)}`
    if (resolving.has(label))
      throw new NixError('FLAKE_LOCK_CYCLE', `expected input ${label} not to follow itself`)
    if (resolving.size === MAX_CHAIN)
      throw new NixError('FLAKE_LOCK_LIMIT', `expected at most ${MAX_CHAIN} follows in a row`)
    resolving.add(label)
    const target = walk(path, `input ${label}`)
    resolving.delete(label)
    return target
  }

  const walk = (path: readonly string[], where: string): string => {
    let at = root
    for (const part of path) {
      const input = nodes.get(at)?.get(part)
      if (input === undefined)
        throw new NixError(
          'FLAKE_LOCK_INPUT',
          `expected ${where} to lead to an input, got ${quote(path.join('/'))}`,
        )
      at = resolveInput(at, part, input)
    }
    return at
  }

  for (const [key, inputs] of nodes)
    for (const [name, input] of inputs) {
      if (typeof input !== 'string') continue
      if (!nodes.has(input))
        throw new NixError(
          'FLAKE_LOCK_INPUT',
          `expected input ${quote(name)} of node ${quote(key)} to be a node, got ${quote(input)}`,
        )
      if (input === root)
        throw new NixError(
          'FLAKE_LOCK_CYCLE',
          `expected input ${quote(name)} of node ${quote(key)} to follow the root, got its key`,
        )
    }
  refuseContainment(nodes)
  const links = new Map<string, Map<string, FlakeLink>>()
  for (const [key, inputs] of nodes)
    links.set(
      key,
      new Map(
        Array.from(inputs, ([name, input]): [string, FlakeLink] => {
          const node = resolveInput(key, name, input)
          return [name, typeof input === 'string' ? { node } : { node, follows: input }]
        }),
      ),
    )
  refuseParentCycles(
    new Map(
      Array.from(parents, ([key, path]) => [key, walk(path, `parent of node ${quote(key)}`)]),
    ),
  )
  return links
}

/** Keys of the nodes that the root does not reach through inputs that name nodes, as Nix walks them. */
export function findUnreachable(root: string, nodes: ReadonlyMap<string, RawInputs>): string[] {
  const reached = new Set([root])
  for (const key of reached)
    for (const input of nodes.get(key)?.values() ?? [])
      if (typeof input === 'string') reached.add(input)
  return [...nodes.keys()].filter((key) => !reached.has(key))
}

/** Two flakes may follow each other; they cannot contain each other. */
function refuseContainment(nodes: ReadonlyMap<string, RawInputs>): void {
  const state = new Map<string, 'open' | 'done'>()
  for (const start of nodes.keys()) {
    const stack = [start]
    for (let key = stack.at(-1); key !== undefined; key = stack.at(-1)) {
      if (state.get(key) !== undefined) {
        state.set(key, 'done')
        stack.pop()
        continue
      }
      state.set(key, 'open')
      for (const input of nodes.get(key)?.values() ?? []) {
        if (typeof input !== 'string') continue
        if (state.get(input) === 'open')
          throw new NixError(
            'FLAKE_LOCK_CYCLE',
            `expected node ${quote(input)} not to contain itself`,
          )
        if (state.get(input) === undefined) stack.push(input)
      }
    }
  }
}

function refuseParentCycles(parents: ReadonlyMap<string, string>): void {
  const good = new Set<string>()
  for (const start of parents.keys()) {
    const chain = new Set<string>()
    for (let key: string | undefined = start; key !== undefined; key = parents.get(key)) {
      if (good.has(key)) break
      if (chain.has(key))
        throw new NixError(
          'FLAKE_LOCK_CYCLE',
          `expected node ${quote(key)} not to be its own parent`,
        )
      if (chain.size === MAX_CHAIN)
        throw new NixError('FLAKE_LOCK_LIMIT', `expected at most ${MAX_CHAIN} parents in a row`)
      chain.add(key)
    }
    for (const key of chain) good.add(key)
  }
}
