// A small tree in a scratch directory that stands for a store path; only the parsers would object.
import { chmodSync, existsSync, mkdirSync, mkdtempSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { hashNar, sha256Hex } from '@bagcheck/nix'
import type { ClosureManifest, StorePath } from '@bagcheck/nix'

/** A directory of its own, in memory where that is possible. */
export function makeScratch(): string {
  return mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'bagcheck-verify-'))
}

/** Who owns the trees that tests make. */
export const owner: number = process.getuid?.() ?? 0

/** Makes `bin/tool`, `data`, `empty/` and `link` below `root`, with the modes that Nix leaves. */
export function makeTree(root: string): void {
  mkdirSync(join(root, 'bin'), { recursive: true })
  writeFileSync(join(root, 'bin/tool'), '#!/bin/sh\n', { mode: 0o555 })
  writeFileSync(join(root, 'data'), 'data\n', { mode: 0o444 })
  mkdirSync(join(root, 'empty'), { mode: 0o555 })
  symlinkSync('data', join(root, 'link'))
  chmodSync(join(root, 'bin'), 0o555)
  chmodSync(root, 0o555)
}

/** A manifest of the trees at `roots`, as they are now. */
export async function manifestOf(...roots: readonly string[]): Promise<ClosureManifest> {
  const entries = await Promise.all(
    roots.map(async (root) => ({
      path: root as StorePath,
      ...(await hashNar(root)),
      references: [],
    })),
  )
  return { root: roots[0] as StorePath, entries, digest: sha256Hex(roots.join()), text: '' }
}

/** Changes something in a directory that is read-only as in a store. */
export function alter(directory: string, work: () => void): void {
  chmodSync(directory, 0o755)
  work()
  chmodSync(directory, 0o555)
}
