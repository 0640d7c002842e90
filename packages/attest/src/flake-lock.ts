// The inputs that a flake.lock pins.
//
//   {"version":5..7,"root":KEY,"nodes":{KEY:{"inputs"?,"locked"?:{type,…},"original"?,"flake"?}}}
//
// Only what is locked is read: one input per node with `locked`, whoever refers to it. Which node
// follows which does not change what was fetched. Limits: 4 MiB of text, 10,000 nodes.
import { parseNarHash } from '@bagcheck/nix'
import type { NarHash } from '@bagcheck/nix'
import type { FlakeInput } from './closure-predicate.ts'
import { AttestError } from './error.ts'
import { publicUrl } from './public-url.ts'
import { asCount, asObject, asString, mismatch, within, type Place } from './shape.ts'
import { parseStrictJson, type JsonObject } from './strict-json.ts'

const MAX_NODES = 10_000
const OLDEST_VERSION = 5
const NEWEST_VERSION = 7

/**
 * Returns the locked inputs, ordered by the names of their nodes.
 *
 * @throws {AttestError} JSON_*; FLAKE_LOCK
 * @see https://github.com/NixOS/nix/blob/master/src/libflake/lockfile.cc
 */
export function parseFlakeLock(bytes: Uint8Array): readonly FlakeInput[] {
  const place: Place = { at: 'flake.lock', code: 'FLAKE_LOCK' }
  const lock = asObject(parseStrictJson(bytes), place)
  const version = asCount(lock['version'], within(place, 'version'))
  if (version < OLDEST_VERSION || version > NEWEST_VERSION)
    throw mismatch(within(place, 'version'), `${OLDEST_VERSION} to ${NEWEST_VERSION}`, version)
  const rootKey = asString(lock['root'], within(place, 'root'))
  const nodesPlace = within(place, 'nodes')
  const nodes = asObject(lock['nodes'], nodesPlace)
  const keys = Object.keys(nodes).toSorted()
  if (keys.length > MAX_NODES) throw mismatch(nodesPlace, `at most ${MAX_NODES} nodes`, keys.length)
  if (!Object.hasOwn(nodes, rootKey)) throw mismatch(nodesPlace, 'the root node', rootKey)
  return keys.flatMap((key) => {
    const at = within(nodesPlace, key)
    const locked = asObject(nodes[key], at)['locked']
    if (key === rootKey || locked === undefined) return []
    return [readInput(key, asObject(locked, within(at, 'locked')), within(at, 'locked'))]
  })
}

function readInput(name: string, locked: JsonObject, place: Place): FlakeInput {
  const { rev, narHash, lastModified } = locked
  return {
    name,
    url: publicUrl(flakeReference(locked, place)),
    rev: rev === undefined ? null : asString(rev, within(place, 'rev')),
    narHash: narHash === undefined ? null : readNarHash(narHash, within(place, 'narHash')),
    lastModified:
      lastModified === undefined ? null : asCount(lastModified, within(place, 'lastModified')),
  }
}

// The reference without its revision, as `nix flake metadata` spells it.
function flakeReference(locked: JsonObject, place: Place): string {
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

function readNarHash(value: unknown, place: Place): NarHash {
  const text = asString(value, place)
  try {
    return parseNarHash(text)
  } catch (cause) {
    throw new AttestError(place.code, mismatch(place, 'a NAR hash', text).message, { cause })
  }
}
