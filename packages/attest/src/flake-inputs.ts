// The inputs that a flake.lock pins, as an attestation states them: those that the locked flake reaches,
// once each. Which of them follows which does not change what was fetched.
import { byteOrder, flakeInputs, parseFlakeLock } from '@bagcheck/nix'
import type { LockedNode } from '@bagcheck/nix'
import type { FlakeInput } from './closure-predicate.ts'
import { publicUrl } from './public-url.ts'
import { asCount, asString, mismatch, within, type Place } from './shape.ts'

/**
 * Returns the inputs of a flake.lock, ordered by the names of their nodes.
 *
 * @throws {NixError} FLAKE_LOCK_*, JSON_* – not a lock of version 5 to 7
 * @throws {AttestError} FLAKE_LOCK – a kind of input, or a member of one, that cannot be stated
 */
export function readFlakeInputs(flakeLock: Uint8Array): readonly FlakeInput[] {
  return flakeInputs(parseFlakeLock(flakeLock))
    .map(({ node }) => stateInput(node))
    .toSorted((a, b) => byteOrder(a.name, b.name))
}

function stateInput({ key, locked, narHash }: LockedNode): FlakeInput {
  const place: Place = { at: `flake.lock.nodes.${key}.locked`, code: 'FLAKE_LOCK' }
  const { rev = null, lastModified = null } = locked
  return {
    name: key,
    url: publicUrl(flakeReference(locked, place)),
    rev: rev === null ? null : asString(rev, within(place, 'rev')),
    narHash: narHash ?? null,
    lastModified:
      lastModified === null ? null : asCount(lastModified, within(place, 'lastModified')),
  }
}

// The reference without its revision, as `nix flake metadata` spells it.
function flakeReference(locked: LockedNode['locked'], place: Place): string {
  const text = (name: string): string => asString(locked[name], within(place, name))
  const type = text('type')
  switch (type) {
    case 'github':
    case 'gitlab':
    case 'sourcehut': {
      const host = locked['host'] === undefined ? '' : `?host=${text('host')}`
      return `${type}:${text('owner')}/${text('repo')}${host}`
    }
    case 'git':
    case 'hg':
      return `${type}+${text('url')}`
    case 'tarball':
    case 'file':
      return text('url')
    case 'path':
      return `path:${text('path')}`
    case 'indirect':
      return `flake:${text('id')}`
    default:
      throw mismatch(within(place, 'type'), 'a type of flake reference', type)
  }
}
