import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  appendLeaves,
  consistencyProof,
  emptyRoot,
  inclusionProof,
  leafHash,
  nodeHash,
  nodesNeeded,
  rootAt,
} from '../src/index.ts'
import { memoryTree } from './memory-tree.ts'

// The inputs and roots that every RFC 6962 implementation is tested with.
const classicLeaves = [
  ...['', '00', '10', '2021', '3031', '40414243', '5051525354555657'],
  '606162636465666768696a6b6c6d6e6f',
].map((hex) => Buffer.from(hex, 'hex'))
const classicRoots = [
  'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
  'fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125',
  'aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77',
  'd37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7',
  '4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4',
  '76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef',
  'ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c',
  '5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328',
]

describe('the tree', () => {
  test.each(classicRoots.map((root, size) => ({ size, root })))(
    'has the known root at $size classic leaves',
    ({ size, root }) => {
      const tree = memoryTree()
      tree.append(classicLeaves.slice(0, size))
      expect(Buffer.from(tree.root()).toString('hex')).toBe(root)
    },
  )

  test('at every size to 300, roots equal the recursive definition of RFC 9162', () => {
    const tree = memoryTree(300)
    const hashes = tree.leaves.map(leafHash)
    for (let size = 0; size <= 300; size++)
      expect(tree.root(size)).toEqual(definition(hashes.slice(0, size)))
  })

  test('however leaves are batched, roots and nodes are the same', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(9), { maxLength: 30 }), (batches) => {
        const tree = memoryTree()
        let size = 0
        for (const batch of batches) {
          const leaves = Array.from({ length: batch }, (_, i) => Buffer.from(`leaf ${size + i}`))
          const before = appendLeaves(size, leaves.map(leafHash), tree.readNode)
          tree.append(leaves)
          size += batch
          expect(before.root).toEqual(tree.root())
        }
        expect(tree.root()).toEqual(memoryTree(size).root())
      }),
    )
  })

  test('appending stores exactly the complete subtrees', () => {
    const { nodes } = appendLeaves(5, [0, 1, 2].map(leaf), memoryTree(5).readNode)
    expect(nodes.map(({ level, index }) => `${level}/${index}`)).toEqual([
      ...['0/5', '1/2', '0/6', '0/7', '1/3', '2/1', '3/0'],
    ])
  })

  test('sizes beyond 32 bits are arithmetic as usual', () => {
    const size = 2 ** 40 + 2 ** 33
    const reads = nodesNeeded((read) => rootAt(size, read))
    expect(reads).toEqual([
      { level: 40, index: 0 },
      { level: 33, index: 2 ** 7 },
    ])
    const { nodes, root } = appendLeaves(size - 1, [leaf(0)], () => leafHash(Buffer.from('x')))
    expect(nodes).toHaveLength(34)
    expect(nodes.at(-1)).toMatchObject({ level: 33, index: 128 })
    expect(root).toHaveLength(32)
    expect(inclusionProof(size - 1, size, () => emptyRoot())).toHaveLength(34)
  })

  test.each([-1, 0.5, Number.NaN, 2 ** 53, Number.POSITIVE_INFINITY])(
    'a size of %d is refused',
    (size) => {
      const read = () => emptyRoot()
      const refused = expect.objectContaining({ code: 'LOG_SIZE' })
      expect(() => rootAt(size, read)).toThrow(refused)
      expect(() => appendLeaves(size, [], read)).toThrow(refused)
      expect(() => inclusionProof(0, size, read)).toThrow(refused)
      expect(() => inclusionProof(size, 9, read)).toThrow(refused)
      expect(() => consistencyProof(size, 9, read)).toThrow(refused)
      expect(() => consistencyProof(1, size, read)).toThrow(refused)
    },
  )

  test('a tree cannot grow beyond safe integers', () => {
    expect(() => appendLeaves(2 ** 53 - 1, [leaf(0)], () => emptyRoot())).toThrow(
      expect.objectContaining({ code: 'LOG_SIZE' }),
    )
  })

  test('a hash of another length is refused, from a leaf and from the store', () => {
    const refused = expect.objectContaining({ code: 'LOG_HASH' })
    const short = new Uint8Array(31)
    expect(() => appendLeaves(0, [short], () => emptyRoot())).toThrow(refused)
    expect(() => rootAt(1, () => short)).toThrow(refused)
  })

  test('the nodes a proof needs are found without any hash', () => {
    const tree = memoryTree(100)
    for (const index of [0, 63, 64, 99]) {
      const needed = nodesNeeded((read) => inclusionProof(index, 100, read))
      const seen: string[] = []
      inclusionProof(index, 100, (level, i) => {
        seen.push(`${level}/${i}`)
        return tree.readNode(level, i)
      })
      expect(needed.map(({ level, index: i }) => `${level}/${i}`)).toEqual([...new Set(seen)])
    }
  })
})

function leaf(i: number): Uint8Array {
  return leafHash(Buffer.from(`leaf ${i}`))
}

/** MTH of RFC 9162 §2.1.1, word for word. */
function definition(hashes: readonly Uint8Array[]): Uint8Array {
  const [only] = hashes
  if (only === undefined) return emptyRoot()
  if (hashes.length === 1) return only
  let k = 1
  while (k * 2 < hashes.length) k *= 2
  return nodeHash(definition(hashes.slice(0, k)), definition(hashes.slice(k)))
}
