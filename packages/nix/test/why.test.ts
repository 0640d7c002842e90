import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { referenceChains, shortestChain } from '@bagcheck/nix'
import type { ClosureManifest } from '@bagcheck/nix'
import { at, closure } from './closure-diff/closures.ts'
import type { Row } from './closure-diff/closures.ts'

const row = (path: string, ...references: string[]): Row => [path, path, 1, ...references]

const diamond = closure(
  row('a-libc', 'a-libc'),
  row('b-left', 'a-libc'),
  row('c-right', 'a-libc', 'b-left'),
  row('z-root', 'b-left', 'c-right', 'z-root'),
)

describe('the reference chains of a closure', () => {
  test('are all there, shortest first, then in byte order', () => {
    expect(referenceChains(diamond, at('a-libc'))).toEqual({
      chains: [
        ['z-root', 'b-left', 'a-libc'],
        ['z-root', 'c-right', 'a-libc'],
        ['z-root', 'c-right', 'b-left', 'a-libc'],
      ].map((chain) => chain.map(at)),
      complete: true,
    })
    expect(shortestChain(diamond, at('a-libc'))).toEqual(['z-root', 'b-left', 'a-libc'].map(at))
  })

  test('of a path to itself are one, of one path, self-reference or not', () => {
    expect(referenceChains(diamond, at('z-root')).chains).toEqual([[at('z-root')]])
    const single = { from: at('b-left') }
    expect(referenceChains(diamond, at('b-left'), single).chains).toEqual([[at('b-left')]])
  })

  test('start where they are asked to, and may not exist', () => {
    expect(shortestChain(diamond, at('a-libc'), at('c-right'))).toEqual(
      ['c-right', 'a-libc'].map(at),
    )
    expect(shortestChain(diamond, at('c-right'), at('b-left'))).toBeUndefined()
    const up = { from: at('a-libc') }
    expect(referenceChains(diamond, at('z-root'), up)).toEqual({ chains: [], complete: true })
  })

  test('are refused for a path that is not in the closure', () => {
    const invalid = expect.objectContaining({ code: 'PATH_INVALID' })
    expect(() => shortestChain(diamond, at('d-other'))).toThrow(invalid)
    expect(() => shortestChain(diamond, at('a-libc'), at('d-other'))).toThrow(invalid)
  })

  test('end in closures with circles, which only a forged manifest has', () => {
    const circle = closure(
      row('a-leaf', 'b-one'),
      row('b-one', 'a-leaf', 'c-two'),
      row('c-two', 'b-one'),
      row('z-root', 'c-two'),
    )
    expect(referenceChains(circle, at('a-leaf')).chains).toEqual([
      ['z-root', 'c-two', 'b-one', 'a-leaf'].map(at),
    ])
  })

  // 40 layers of 2 paths, each referring to both of the next: 2^39 chains.
  const layers = Array.from({ length: 40 }, (_, n) => [`a-${n}`, `b-${n}`])
  const lattice = closure(
    ...layers.flatMap((layer, n) => layer.map((path) => row(path, ...(layers[n - 1] ?? [])))),
    row('z-root', 'a-39', 'b-39'),
  )

  test('are cut off at the number asked for, without looking at the rest', () => {
    const { chains, complete } = referenceChains(lattice, at('a-0'), { maxChains: 10 })
    expect({ count: chains.length, complete }).toEqual({ count: 10, complete: false })
    expect(new Set(chains.map(String)).size).toBe(10)
    for (const chain of chains) expect(chain).toHaveLength(41)
    expect(shortestChain(lattice, at('b-0'))).toHaveLength(41)
  })

  /** What is meant, in the simplest way. */
  function everyChain(manifest: ClosureManifest, path: string, chain: string[]): string[][] {
    const here = chain.at(-1) ?? ''
    if (here === path) return [chain]
    const next = manifest.entries.find((entry) => entry.path === here)?.references ?? []
    return next
      .filter((p) => !chain.includes(p))
      .flatMap((p) => everyChain(manifest, path, [...chain, p]))
  }

  test('are those that a plain search finds, in any closure', () => {
    const names = ['a-0', 'b-1', 'c-2', 'd-3', 'f-4', 'g-5', 'h-6', 'z-root']
    const edges = fc.array(fc.array(fc.nat({ max: 7 }), { maxLength: 5 }), {
      minLength: 7,
      maxLength: 7,
    })
    fc.assert(
      fc.property(edges, fc.nat({ max: 6 }), fc.boolean(), (all, target, circles) => {
        const rows = names.map((name, index) => {
          const wanted = (all[index] ?? []).filter((n) => n < 7 && (circles || n < index))
          return row(
            name,
            ...new Set(name === 'z-root' ? names.slice(0, 7) : wanted.map((n) => names[n] ?? '')),
          )
        })
        const manifest = closure(...rows)
        const path = at(names[target] ?? '')
        const { chains, complete } = referenceChains(manifest, path, { maxChains: 100_000 })
        const plain = everyChain(manifest, path, [manifest.root])
        plain.sort((a, b) => a.length - b.length || (String(a) < String(b) ? -1 : 1))
        expect(complete).toBe(true)
        expect(chains).toEqual(plain)
        expect(shortestChain(manifest, path)).toEqual(plain[0])
      }),
    )
  })
})
