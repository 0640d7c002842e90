import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  consistencyProof,
  HASH_BYTES,
  inclusionProof,
  leafHash,
  LogError,
  MAX_PROOF_HASHES,
  verifyConsistency,
  verifyInclusion,
} from '../src/index.ts'
import { flipBit, memoryTree } from './memory-tree.ts'

interface Vectors {
  inclusion: {
    file: string
    leafIdx: number
    treeSize: number
    root: string
    leafHash: string
    proof: string[] | null
    wantErr: boolean
  }[]
  consistency: {
    file: string
    size1: number
    size2: number
    root1: string
    root2: string
    proof: string[] | null
    wantErr: boolean
  }[]
}

const vectors: Vectors = JSON.parse(
  readFileSync(new URL('../testdata/merkle-vectors.json', import.meta.url), 'utf8'),
)

describe('vectors of transparency-dev/merkle', () => {
  test.each(vectors.inclusion)('$file', (v) => {
    const verify = () =>
      verifyInclusion({
        leafHash: bytes(v.leafHash),
        index: v.leafIdx,
        size: v.treeSize,
        root: bytes(v.root),
        proof: (v.proof ?? []).map(bytes),
      })
    if (v.wantErr) expect(verify).toThrow(LogError)
    else verify()
  })

  test.each(vectors.consistency)('$file', (v) => {
    const verify = () =>
      verifyConsistency({
        from: v.size1,
        to: v.size2,
        fromRoot: bytes(v.root1),
        toRoot: bytes(v.root2),
        proof: (v.proof ?? []).map(bytes),
      })
    // One vector accepts 12 bytes as a root, where a client would not have looked at it. We do look.
    const roots = [v.root1, v.root2].map(bytes)
    if (v.wantErr || roots.some(({ length }) => length !== HASH_BYTES))
      expect(verify).toThrow(LogError)
    else verify()
  })
})

const SIZES = 130

describe('inclusion', () => {
  test('every leaf of every tree to size 130 is proven', () => {
    const tree = memoryTree(SIZES)
    for (let size = 1; size <= SIZES; size++) {
      for (let index = 0; index < size; index++) verifyInclusion(inclusion(tree, index, size))
    }
  })

  test('a proof for one index, size or leaf proves no other', () => {
    const tree = memoryTree(SIZES)
    fc.assert(
      fc.property(fc.integer({ min: 1, max: SIZES }), fc.nat(), fc.nat(), (size, i, j) => {
        const claim = inclusion(tree, i % size, size)
        const other = j % SIZES
        if (other !== claim.index) {
          const wrongLeaf = { ...claim, leafHash: leafHash(Buffer.from(`leaf ${other}`)) }
          expect(() => verifyInclusion(wrongLeaf)).toThrow(LogError)
          expect(() => verifyInclusion({ ...claim, index: other })).toThrow(LogError)
        }
        const wrongRoot = { ...claim, root: tree.root((size % SIZES) + 1) }
        if (size < SIZES) expect(() => verifyInclusion(wrongRoot)).toThrow(LogError)
      }),
    )
  })

  test('a proof with a bit flipped, a hash more, a hash less or two swapped is refused', () => {
    const tree = memoryTree(SIZES)
    fc.assert(
      fc.property(fc.integer({ min: 2, max: SIZES }), fc.nat(), fc.nat(), (size, i, at) => {
        const claim = inclusion(tree, i % size, size)
        for (const proof of mutations(claim.proof, at))
          expect(() => verifyInclusion({ ...claim, proof })).toThrow(LogError)
      }),
    )
  })

  test('a proof longer than any tree needs is refused before hashing', () => {
    const claim = inclusion(memoryTree(3), 1, 3)
    const proof = Array.from({ length: MAX_PROOF_HASHES + 1 }, () => new Uint8Array(32))
    expect(() => verifyInclusion({ ...claim, proof })).toThrow(
      expect.objectContaining({ code: 'LOG_PROOF' }),
    )
  })

  test.each([{ index: 3 }, { index: -1 }, { index: 0.5 }, { size: 2 ** 53 }])(
    '%o is no leaf of the tree',
    (wrong) => {
      const claim = { ...inclusion(memoryTree(3), 1, 3), ...wrong }
      expect(() => verifyInclusion(claim)).toThrow(expect.objectContaining({ code: 'LOG_SIZE' }))
    },
  )
})

describe('consistency', () => {
  test('every pair of sizes to 130 is proven', () => {
    const tree = memoryTree(SIZES)
    for (let to = 1; to <= SIZES; to++) {
      for (let from = 1; from <= to; from++) verifyConsistency(consistency(tree, from, to))
    }
  })

  test('a rewritten history is refused whatever proof the forger computes', () => {
    const honest = memoryTree(40)
    for (const rewritten of [0, 7, 20, 31]) {
      const forged = memoryTree(rewritten)
      forged.append([Buffer.from('forged')])
      forged.append(honest.leaves.slice(rewritten + 1))
      for (let from = rewritten + 1; from <= 40; from++) {
        const claim = consistency(forged, from, 40)
        expect(() => verifyConsistency({ ...claim, fromRoot: honest.root(from) })).toThrow(
          expect.objectContaining({ code: 'LOG_PROOF' }),
        )
      }
    }
  })

  test('a proof with a bit flipped, a hash more, a hash less or two swapped is refused', () => {
    const tree = memoryTree(SIZES)
    fc.assert(
      fc.property(fc.integer({ min: 2, max: SIZES }), fc.nat(), fc.nat(), (to, i, at) => {
        const claim = consistency(tree, 1 + (i % (to - 1)), to)
        for (const proof of mutations(claim.proof, at))
          expect(() => verifyConsistency({ ...claim, proof })).toThrow(LogError)
      }),
    )
  })

  test.each([
    { from: 0, to: 3 },
    { from: 3, to: 2 },
    { from: 0, to: 0 },
    { from: 1.5, to: 3 },
  ])('$from to $to is no claim', ({ from, to }) => {
    const root = memoryTree(3).root()
    const claim = { from, to, fromRoot: root, toRoot: root, proof: [] }
    expect(() => verifyConsistency(claim)).toThrow(expect.objectContaining({ code: 'LOG_SIZE' }))
  })
})

function inclusion(tree: ReturnType<typeof memoryTree>, index: number, size: number) {
  return {
    leafHash: tree.readNode(0, index),
    index,
    size,
    root: tree.root(size),
    proof: inclusionProof(index, size, tree.readNode),
  }
}

function consistency(tree: ReturnType<typeof memoryTree>, from: number, to: number) {
  return {
    from,
    to,
    fromRoot: tree.root(from),
    toRoot: tree.root(to),
    proof: consistencyProof(from, to, tree.readNode),
  }
}

function* mutations(proof: readonly Uint8Array[], at: number): Generator<Uint8Array[]> {
  yield [...proof, new Uint8Array(32)]
  yield [new Uint8Array(32), ...proof]
  const [first, ...rest] = proof
  if (first === undefined) return
  yield rest
  yield proof.slice(0, -1)
  const k = at % proof.length
  yield proof.map((hash, i) => (i === k ? flipBit(hash, at % 256) : hash))
  yield proof.map((hash, i) => (i === k ? hash.subarray(1) : hash))
  if (proof.length > 1) yield [...rest, first]
}

function bytes(base64: string): Uint8Array {
  return Buffer.from(base64, 'base64')
}
