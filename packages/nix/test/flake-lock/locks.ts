// Locks for tests.
import { hash } from 'node:crypto'

/** The hash of a tree that nobody has. */
export const NAR_HASH: string = `sha256-${hash('sha256', 'tree', 'base64')}`
export const REV: string = hash('sha1', 'commit')

/** A node as Nix writes it for `github:owner/NAME`. */
export function github(name: string, members: object = {}, locked: object = {}): object {
  return {
    locked: {
      lastModified: 1,
      narHash: NAR_HASH,
      owner: 'owner',
      repo: name,
      rev: REV,
      type: 'github',
      ...locked,
    },
    original: { owner: 'owner', repo: name, type: 'github' },
    ...members,
  }
}

/** The text of a lock. */
export function lockText(nodes: object, rest: object = {}): Buffer {
  return Buffer.from(JSON.stringify({ nodes, root: 'root', version: 7, ...rest }))
}
