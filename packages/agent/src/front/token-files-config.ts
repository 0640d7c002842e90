// `tokenFiles` of the configuration.
import { AgentError, quote } from '../error.ts'
import { list, record } from '../config-reader.ts'
import { parseAudience } from './requests.ts'
import type { TokenFile } from './token-files.ts'

const MAX_FILES = 256
const MEMBERS = ['unit', 'audience', 'path', 'owner', 'mode', 'profile', 'ttlSeconds']

/** @param resolve makes a path absolute. @throws {AgentError} CONFIG_INVALID */
export function parseTokenFiles(value: unknown, resolve: (path: string) => string): TokenFile[] {
  const files = list(value ?? [], 'tokenFiles', MAX_FILES).map((entry) => {
    const file = record(entry, 'tokenFiles', MEMBERS)
    const { unit, path, profile = null, ttlSeconds = null, mode = '0440' } = file
    if (!isUnitName(unit)) throw invalid('unit', unit)
    if (typeof path !== 'string' || !/[^/]$/.test(path)) throw invalid('path', path)
    if (profile !== null && !(typeof profile === 'string' && /^[!-~]{1,64}$/.test(profile)))
      throw invalid('profile', profile)
    const isTtl = Number.isInteger(ttlSeconds) && (ttlSeconds as number) >= 1
    if (ttlSeconds !== null && !(isTtl && (ttlSeconds as number) <= 86_400))
      throw invalid('ttlSeconds', ttlSeconds)
    if (typeof mode !== 'string' || !/^0[46][04]0$/.test(mode)) throw invalid('mode', mode)
    return {
      unit,
      audience: parseAudience(file['audience']),
      path: resolve(path),
      owner: parseOwner(file['owner']),
      mode: Number.parseInt(mode, 8),
      profile,
      ttlSeconds: ttlSeconds as number | null,
    }
  })
  const paths = files.map(({ path }) => path)
  const twice = paths.find((path, index) => paths.indexOf(path) !== index)
  if (twice !== undefined) throw invalid('path, given twice', twice)
  return files
}

/** A unit of systemd ends in `.service`, every other name is one of `bagcheck exec`. */
export function isUnitName(value: unknown): value is string {
  if (typeof value !== 'string') return false
  return value.endsWith('.service')
    ? /^[A-Za-z0-9:_.@][A-Za-z0-9:_.@-]{0,191}\.service$/.test(value)
    : /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(value)
}

function parseOwner(value: unknown): TokenFile['owner'] {
  if (value === undefined || value === null) return null
  const { uid, gid } = record(value, 'owner', ['uid', 'gid'])
  const isId = (id: unknown): id is number =>
    Number.isInteger(id) && (id as number) >= 0 && (id as number) < 0xffff_ffff
  if (!isId(uid) || !isId(gid)) throw invalid('owner', value)
  return { uid, gid }
}

function invalid(key: string, seen: unknown): AgentError {
  return new AgentError('CONFIG_INVALID', `unexpected ${key} in tokenFiles: ${quote(seen)}`)
}
