// What `nix path-info --json` prints, in every shape in the field:
//
//   Nix up to 2.18, Lix    [ { "path": full, … }, { "path": full, "valid": false } ]
//   Nix 2.19 to 2.34       { full: { … } | null }                       version 1, where it says one
//   --json-format 2 and 3  { "version": n, "storeDir": …, "info": { base: { … } | null } }
//
//   { narHash, narSize, references, deriver?, ultimate?, signatures?, ca? }; null means absent. In version
//   1 paths are full and `ca` is text. From version 2 on paths are base names, `narHash` is SRI, `ca` is null or an
//   object, and each entry has version and store directory; in version 3 signatures are objects.
//
// For hosts where neither a socket nor the database can be read. The text is a claim of whoever printed
// it. Members that are not used here are ignored: each release adds some. Versions 2 and 3 are read as the manual's
// schemas have them (protocols/json/schema/store-object-info-v3.yaml and what it refers to).
// https://github.com/NixOS/nix/blob/master/src/nix/path-info.cc
import { formatContentAddress, parseContentAddress } from '../content-address.ts'
import type { IngestionMethod } from '../content-address.ts'
import { NixError, quote } from '../error.ts'
import { parseHash, parseNarHash } from '../hash.ts'
import type { PathInfo } from '../manifest.ts'
import {
  byteOrder,
  parseStorePath,
  parseStorePathBase,
  STORE_DIR,
  storePathBase,
} from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import { describeJson, isJsonObject, parseStrictJson } from '../strict-json.ts'
import type { JsonObject } from '../strict-json.ts'

/** Most bytes of `nix path-info --json`: 100,000 paths. */
export const PATH_INFO_MAX_BYTES: number = 256 << 20
const MAX_PATHS = 200_000

/** How the members of an entry are written. */
interface Version {
  readonly number: number
  readonly parsePath: (text: string) => StorePath
}

const FULL: Version = { number: 1, parsePath: parseStorePath }

/**
 * The facts about the valid paths in the output of `nix path-info --json`, in byte order of path.
 *
 * @throws {NixError} PATH_INFO_ENTRY – not such output, one of a version that we do not know, for another
 * store directory, or with a path twice; JSON_SYNTAX, JSON_DUPLICATE_KEY, JSON_LIMIT
 */
export function parsePathInfoJson(bytes: Uint8Array): PathInfo[] {
  const entries = findEntries(parseStrictJson(bytes, PATH_INFO_MAX_BYTES))
  const infos: PathInfo[] = []
  const seen = new Set<StorePath>()
  for (const { key, value, version } of entries) {
    const path = attempt(key, () => version.parsePath(key))
    if (seen.has(path)) throw entryError(key, 'each path once', key)
    seen.add(path)
    if (seen.size > MAX_PATHS) throw entryError(key, `at most ${MAX_PATHS} paths`, key)
    if (value === null || (isJsonObject(value) && value['valid'] === false)) continue
    if (!isJsonObject(value)) throw entryError(key, 'an object', value)
    infos.push(parseEntry(path, value, version))
  }
  return infos.sort((a, b) => byteOrder(a.path, b.path))
}

interface Entry {
  readonly key: string
  readonly value: unknown
  readonly version: Version
}

function findEntries(document: unknown): Entry[] {
  if (Array.isArray(document))
    return document.map((value: unknown) => {
      const key = isJsonObject(value) ? value['path'] : undefined
      if (typeof key !== 'string') throw entryError('', 'a path in each entry', value)
      return { key, value, version: FULL }
    })
  if (!isJsonObject(document)) throw entryError('', 'an array or an object', document)
  if (!isJsonObject(document['info']))
    return Object.entries(document).map(([key, value]) => ({ key, value, version: FULL }))
  const number = document['version']
  if (number !== 2 && number !== 3) throw entryError('', 'version 2 or 3', number)
  checkStoreDir('', document)
  const version = { number, parsePath: parseStorePathBase }
  return Object.entries(document['info']).map(([key, value]) => ({ key, value, version }))
}

function parseEntry(path: StorePath, entry: JsonObject, version: Version): PathInfo {
  const { narHash, narSize, references, deriver, ultimate, signatures } = entry
  checkStoreDir(path, entry)
  if (version.number > 1 && isAbsent(entry['storeDir']))
    throw entryError(path, 'a store directory', entry['storeDir'])
  if ((version.number > 1 || 'version' in entry) && entry['version'] !== version.number)
    throw entryError(path, `version ${version.number}`, entry['version'])
  const named = entry['path']
  if (named !== undefined && named !== (version.number > 1 ? storePathBase(path) : path))
    throw entryError(path, 'that path', named)
  if (typeof narHash !== 'string' || (version.number > 1 && !narHash.startsWith('sha256-')))
    throw entryError(path, 'a NAR hash', narHash)
  if (typeof narSize !== 'number' || !Number.isSafeInteger(narSize) || narSize < 1)
    throw entryError(path, 'a NAR size', narSize)
  if (!isTexts(references)) throw entryError(path, 'references', references)
  if (!isAbsent(deriver) && typeof deriver !== 'string')
    throw entryError(path, 'a deriver', deriver)
  if (!isAbsent(ultimate) && typeof ultimate !== 'boolean')
    throw entryError(path, '"ultimate" to be a flag', ultimate)
  const ca = readContentAddress(path, entry['ca'], version)
  return attempt(path, () => ({
    path,
    narHash: parseNarHash(narHash),
    narSize,
    references: parseReferences(path, references.map(version.parsePath)),
    ...(typeof deriver === 'string' && { deriver: version.parsePath(deriver) }),
    ...(typeof ultimate === 'boolean' && { ultimate }),
    signatures: parseSignatures(path, signatures, version),
    ...(ca !== undefined && { ca }),
  }))
}

function parseReferences(path: StorePath, references: StorePath[]): StorePath[] {
  references.sort(byteOrder)
  const twice = references.find((reference, index) => reference === references[index - 1])
  if (twice !== undefined) throw entryError(path, 'each reference once', twice)
  return references
}

function parseSignatures(path: StorePath, value: unknown, { number }: Version): string[] {
  if (isAbsent(value)) return []
  if (number < 3) {
    if (isTexts(value)) return [...value]
  } else if (Array.isArray(value)) {
    return value.map((signature: unknown) => {
      const { keyName, sig } = isJsonObject(signature) ? signature : {}
      // The text has the name up to the first colon.
      if (typeof keyName !== 'string' || typeof sig !== 'string' || keyName.includes(':'))
        throw entryError(path, 'a signature', signature)
      return `${keyName}:${sig}`
    })
  }
  throw entryError(path, 'signatures', value)
}

/** The content address as text, the form that narinfo and the database have. */
function readContentAddress(
  path: StorePath,
  value: unknown,
  { number }: Version,
): string | undefined {
  if (value === null || (number === 1 && value === undefined)) return undefined
  if (number === 1 && typeof value === 'string')
    return attempt(path, () => formatContentAddress(parseContentAddress(value)))
  if (number === 1 || !isJsonObject(value)) throw entryError(path, 'a content address', value)
  const { method, hash, ...others } = value
  if (
    Object.keys(others).length > 0 ||
    !isMethod(method) ||
    typeof hash !== 'string' ||
    !hash.includes('-')
  )
    throw entryError(path, 'a content address', value)
  return attempt(path, () =>
    // Through the parser, which knows what goes with which method.
    formatContentAddress(
      parseContentAddress(formatContentAddress({ method, hash: parseHash(hash) })),
    ),
  )
}

function isMethod(value: unknown): value is IngestionMethod {
  return value === 'flat' || value === 'nar' || value === 'git' || value === 'text'
}

function checkStoreDir(path: string, entry: JsonObject): void {
  const storeDir = entry['storeDir']
  if (!isAbsent(storeDir) && storeDir !== STORE_DIR)
    throw entryError(path, `the store directory ${STORE_DIR}`, storeDir)
}

function isAbsent(value: unknown): value is null | undefined {
  return value === undefined || value === null
}

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((one) => typeof one === 'string')
}

/** Runs a parser and says which entry it was about. */
function attempt<T>(key: string, parse: () => T): T {
  try {
    return parse()
  } catch (cause) {
    if (cause instanceof NixError && cause.code === 'PATH_INFO_ENTRY') throw cause
    const reason = cause instanceof Error ? cause.message : String(cause)
    throw new NixError('PATH_INFO_ENTRY', `${quote(key)}: ${reason}`, { cause })
  }
}

function entryError(key: string, expected: string, seen: unknown): NixError {
  const where = key === '' ? '' : ` for ${quote(key)}`
  return new NixError('PATH_INFO_ENTRY', `expected ${expected}${where}, got ${describeJson(seen)}`)
}
