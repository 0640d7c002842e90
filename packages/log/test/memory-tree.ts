import { appendLeaves, leafHash, rootAt, type NodeReader } from '../src/index.ts'

/** A log in memory: what a store does, without one. */
export interface MemoryTree {
  readonly leaves: Uint8Array[]
  readonly readNode: NodeReader
  append(leaves: readonly Uint8Array[]): void
  root(size?: number): Uint8Array
}

export function memoryTree(size = 0): MemoryTree {
  const nodes = new Map<string, Uint8Array>()
  const leaves: Uint8Array[] = []
  const readNode: NodeReader = (level, index) => {
    const hash = nodes.get(`${level}/${index}`)
    if (hash === undefined) throw new Error(`node ${level}/${index} was never stored`)
    return hash
  }
  const tree: MemoryTree = {
    leaves,
    readNode,
    append(added) {
      const appended = appendLeaves(leaves.length, added.map(leafHash), readNode)
      for (const { level, index, hash } of appended.nodes) {
        if (nodes.has(`${level}/${index}`)) throw new Error(`node ${level}/${index} written twice`)
        nodes.set(`${level}/${index}`, hash)
      }
      for (const leaf of added) leaves.push(leaf)
    },
    root: (at = leaves.length) => rootAt(at, readNode),
  }
  tree.append(Array.from({ length: size }, (_, i) => Buffer.from(`leaf ${i}`)))
  return tree
}

/** Flips one bit of a copy. */
export function flipBit(bytes: Uint8Array, bit: number): Uint8Array {
  const copy = Uint8Array.from(bytes)
  const at = Math.floor(bit / 8)
  copy[at] = (copy[at] ?? 0) ^ (1 << (bit % 8))
  return copy
}
