// The Merkle tree of RFC 9162 §2.1 over any storage. Only complete subtrees are stored: the node
// (level, index) is the hash of the leaves [index · 2^level, (index + 1) · 2^level), written once when
// its last leaf arrives and never changed. Everything else (roots, proofs) is computed from those.
//
// Sizes and indices are JavaScript numbers: safe integers, up to 2^53 − 1 leaves. Arithmetic therefore
// uses * and / on powers of two, never the 32-bit operators.
//
// Which nodes a computation reads depends on sizes alone, never on the hashes: see `nodesNeeded`.
import { LogError } from './error.ts'
import { checkHash, emptyRoot, nodeHash } from './hashing.ts'

/** Where a complete subtree stands: `level` 0 is the leaves. */
export interface NodeCoordinate {
  readonly level: number
  readonly index: number
}

/** A complete subtree with its hash. */
export interface TreeNode extends NodeCoordinate {
  readonly hash: Uint8Array
}

/** Returns the hash of one complete subtree. Called only for subtrees that the tree's size implies. */
export type NodeReader = (level: number, index: number) => Uint8Array

/** What {@link appendLeaves} returns; `nodes` are the new complete subtrees, in the order they closed. */
export interface Appended {
  readonly size: number
  readonly root: Uint8Array
  readonly nodes: readonly TreeNode[]
}

/**
 * Appends leaves to a tree of `size` leaves and returns its new size, root and complete subtrees.
 * Reads at most one node per level.
 * @throws {LogError} LOG_SIZE – the size would leave the safe integers; LOG_HASH – a hash is not 32 bytes
 */
export function appendLeaves(
  size: number,
  leafHashes: readonly Uint8Array[],
  readNode: NodeReader,
): Appended {
  checkSize(size)
  checkSize(size + leafHashes.length)
  // frontier[level] is the complete subtree that waits for its right sibling: one per set bit of size,
  // so that appending is a binary counter.
  const frontier: (Uint8Array | undefined)[] = []
  for (const { level, index } of completeSubtrees(0, size)) frontier[level] = readNode(level, index)
  const nodes: TreeNode[] = []
  for (const [offset, leaf] of leafHashes.entries()) {
    let hash = checkHash(leaf, 'leaf hash')
    let index = size + offset
    let level = 0
    nodes.push({ level, index, hash })
    for (let left = frontier[level]; left !== undefined; left = frontier[level]) {
      hash = nodeHash(left, hash)
      frontier[level] = undefined
      index = (index - 1) / 2
      level += 1
      nodes.push({ level, index, hash })
    }
    frontier[level] = hash
  }
  const waiting = frontier.filter((hash) => hash !== undefined)
  return { size: size + leafHashes.length, root: foldRight(waiting.reverse()), nodes }
}

/**
 * The root of the tree when it had `size` leaves.
 * @throws {LogError} LOG_SIZE – not a safe non-negative integer
 */
export function rootAt(size: number, readNode: NodeReader): Uint8Array {
  return rangeHash(0, checkSize(size), readNode)
}

/**
 * The proof that leaf `index` is in the tree of `size` leaves: siblings from the leaf upwards.
 * @throws {LogError} LOG_SIZE – `index` is not below `size`
 * @see https://www.rfc-editor.org/rfc/rfc9162#section-2.1.3.1
 */
export function inclusionProof(index: number, size: number, readNode: NodeReader): Uint8Array[] {
  checkSize(size)
  if (checkSize(index) >= size)
    throw new LogError('LOG_SIZE', `expected an index below ${size}, saw ${index}`)
  const siblings: Uint8Array[] = []
  let [start, end] = [0, size]
  while (end - start > 1) {
    const middle = start + splitSize(end - start)
    if (index < middle) {
      siblings.push(rangeHash(middle, end, readNode))
      end = middle
    } else {
      siblings.push(rangeHash(start, middle, readNode))
      start = middle
    }
  }
  return siblings.reverse()
}

/**
 * The proof that the tree of `from` leaves is a prefix of the tree of `to` leaves; empty when equal.
 * @throws {LogError} LOG_SIZE – not 1 ≤ from ≤ to
 * @see https://www.rfc-editor.org/rfc/rfc9162#section-2.1.4.1
 */
export function consistencyProof(from: number, to: number, readNode: NodeReader): Uint8Array[] {
  checkRange(from, to)
  const proof: Uint8Array[] = []
  let [start, end] = [0, to]
  while (from !== end) {
    const middle = start + splitSize(end - start)
    if (from <= middle) {
      proof.push(rangeHash(middle, end, readNode))
      end = middle
    } else {
      proof.push(rangeHash(start, middle, readNode))
      start = middle
    }
  }
  // The old tree is known to the verifier; a later part of it is not, and comes first.
  if (start > 0) proof.push(rangeHash(start, end, readNode))
  return proof.reverse()
}

/**
 * Every node that `compute` reads, each once, so that a store can fetch them in one query:
 * `nodesNeeded((read) => inclusionProof(index, size, read))`.
 */
export function nodesNeeded(compute: (readNode: NodeReader) => unknown): NodeCoordinate[] {
  const needed = new Map<string, NodeCoordinate>()
  const nothing = emptyRoot() // any hash: what is read next never depends on it
  compute((level, index) => {
    needed.set(`${level}/${index}`, { level, index })
    return nothing
  })
  return [...needed.values()]
}

/**
 * Returns `value` when it can be a size or an index.
 * @throws {LogError} LOG_SIZE – not an integer from 0 to 2^53 − 1
 */
export function checkSize(value: number): number {
  if (Number.isSafeInteger(value) && value >= 0) return value
  throw new LogError('LOG_SIZE', `expected an integer from 0 to 2^53 - 1, saw ${value}`)
}

/** @throws {LogError} LOG_SIZE – not 1 ≤ from ≤ to */
export function checkRange(from: number, to: number): void {
  checkSize(to)
  if (checkSize(from) < 1 || from > to)
    throw new LogError('LOG_SIZE', `expected sizes 1 <= from <= to, saw ${from} and ${to}`)
}

/** MTH(D[start:end]); `start` is a multiple of the power of two that the range fits in. */
function rangeHash(start: number, end: number, readNode: NodeReader): Uint8Array {
  return foldRight(
    completeSubtrees(start, end).map(({ level, index }) =>
      checkHash(readNode(level, index), `node ${level}/${index}`),
    ),
  )
}

/** The complete subtrees that a range consists of, from left to right: one per set bit of its size. */
function completeSubtrees(start: number, end: number): NodeCoordinate[] {
  const subtrees: NodeCoordinate[] = []
  for (let position = start; position < end;) {
    let level = 0
    let width = 1
    while (width * 2 <= end - position) {
      width *= 2
      level += 1
    }
    subtrees.push({ level, index: position / width })
    position += width
  }
  return subtrees
}

function foldRight(hashes: readonly Uint8Array[]): Uint8Array {
  if (hashes.length === 0) return emptyRoot()
  return hashes.reduceRight((right, left) => nodeHash(left, right))
}

/** The largest power of two smaller than `size` (k in RFC 9162). */
function splitSize(size: number): number {
  let k = 1
  while (k * 2 < size) k *= 2
  return k
}
