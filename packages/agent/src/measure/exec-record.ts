// The record that `bagcheck exec` leaves of a launch: UNITSDIR/NAME.json, or NAME@INSTANCE.json where several
// units have one name, owned by root, mode 0600, in a directory of mode 0700. Who can write there is root;
// the checks catch a mistake in its permissions. While a unit starts there is a mark instead: starting.ts.
// The contract is intact while the process that was launched still runs the program that was launched.
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  type BigIntStats,
} from 'node:fs'
import { join } from 'node:path'
import type { UnitRecord } from '@bagcheck/api'
import { AgentError, quote } from '../error.ts'
import { cgroupInode, isWithin } from './cgroup.ts'
import { readInstance } from './instance.ts'
import type { LaunchContract } from './messages.ts'

const MAX_RECORD_BYTES = 256 * 1024
/** Longer than a tick of the clock that stamps files: a later change has another stamp. */
const SETTLED_MS = 100
const MEMBERS: ReadonlySet<string> = new Set<keyof UnitRecord>([
  ...([
    'schema',
    'name',
    'cgroup',
    'cgroupInode',
    'executable',
    'arguments',
    'uid',
    'gid',
  ] as const),
  ...(['noNewPrivs', 'pid', 'startTicks', 'startCode', 'startStack'] as const),
  ...(['executableDevice', 'executableInode'] as const),
])
const DIGITS = /^\d{1,20}$/
/** Most files of one kind in the directory. */
export const MAX_RECORDS = 4096

/** @throws {AgentError} UNIT_RECORD */
export function parseExecRecord(text: string): UnitRecord {
  let value: Record<string, unknown>
  try {
    value = JSON.parse(text) as Record<string, unknown>
  } catch (cause) {
    throw new AgentError('UNIT_RECORD', 'expected JSON in a unit record', { cause })
  }
  if (typeof value !== 'object' || value === null) throw unexpected('', value)
  const string = (key: string): string => {
    const field = value[key]
    if (typeof field === 'string' && field.length <= 4096) return field
    throw unexpected(key, field)
  }
  const integer = (key: string): number => {
    const field = value[key]
    if (Number.isSafeInteger(field) && (field as number) >= 0) return field as number
    throw unexpected(key, field)
  }
  const matching = (key: string, grammar: RegExp): string => {
    const field = string(key)
    if (grammar.test(field)) return field
    throw unexpected(key, field)
  }
  const other = Object.keys(value).find((key) => !MEMBERS.has(key))
  if (other !== undefined) throw unexpected(other, value[other])
  const args = value['arguments']
  if (value['schema'] !== 'bagcheck.unit/v1') throw unexpected('schema', value['schema'])
  if (!Array.isArray(args) || args.length > 256) throw unexpected('arguments', args)
  if (!args.every((arg) => typeof arg === 'string' && arg.length <= 4096))
    throw unexpected('arguments', args)
  if (typeof value['noNewPrivs'] !== 'boolean') throw unexpected('noNewPrivs', value['noNewPrivs'])
  return {
    schema: 'bagcheck.unit/v1',
    name: matching('name', /^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$/),
    cgroup: matching('cgroup', /^\/[^]/),
    cgroupInode: matching('cgroupInode', DIGITS),
    executable: matching('executable', /^\//),
    arguments: args as string[],
    uid: integer('uid'),
    gid: integer('gid'),
    noNewPrivs: value['noNewPrivs'],
    pid: integer('pid'),
    startTicks: integer('startTicks'),
    startCode: integer('startCode'),
    startStack: integer('startStack'),
    executableDevice: matching('executableDevice', /^\d{1,10}:\d{1,10}$/),
    executableInode: matching('executableInode', DIGITS),
  }
}

/**
 * Records by path, as long as their file is the same and unchanged: every measurement asks for its own twice. As
 * many as there are at once.
 */
const parsed = new Map<string, { readonly identity: string; readonly record: UnitRecord }>()
/** The files that there were when the directory last changed, all of them looked at since. */
let listed: { readonly identity: string; readonly names: readonly string[] } | undefined

/**
 * The record of the unit that a process in `cgroup` belongs to, or undefined. A record of a cgroup that
 * was removed and made anew is not one.
 * @throws {AgentError} UNIT_RECORD
 */
export function findExecRecord(
  unitsDir: string,
  mountPoint: string,
  cgroup: string,
): UnitRecord | undefined {
  const found: UnitRecord[] = []
  for (const name of listRecords(unitsDir)) {
    const path = join(unitsDir, name)
    // That of another unit is not looked at again: with a thousand units that would be most of a measurement. A new
    // record is a new file, which the directory shows; one that root changes in its place is missed, and so no unit's.
    const known = parsed.get(path)?.record
    if (known !== undefined && !isWithin(cgroup, known.cgroup)) continue
    const record = readRecord(path)
    if (record === undefined || !isWithin(cgroup, record.cgroup)) continue
    if (name !== `${record.name}.json` && !name.startsWith(`${record.name}@`))
      throw unexpected('name', record.name)
    if (cgroupInode(mountPoint, record.cgroup) === record.cgroupInode) found.push(record)
  }
  if (found.length > 1)
    throw new AgentError(
      'UNIT_RECORD',
      `expected one unit for cgroup ${quote(cgroup)}, saw ${quote(found.map(({ name }) => name))}`,
    )
  return found[0]
}

/** All records, of units that may have ended too. @throws {AgentError} UNIT_RECORD, MEASUREMENT_LIMIT */
export function readExecRecords(unitsDir: string): UnitRecord[] {
  return listRecords(unitsDir)
    .map((name) => readRecord(join(unitsDir, name)))
    .filter((record) => record !== undefined)
}

/** Names of the files that are records. Each of them is looked at whenever the directory has changed. */
function listRecords(unitsDir: string): readonly string[] {
  const directory = statSync(unitsDir, { bigint: true, throwIfNoEntry: false })
  if (directory === undefined) return []
  assertPrivate(unitsDir, { mode: Number(directory.mode), uid: Number(directory.uid) }, 0o700)
  const identity = identityOf(directory)
  if (listed?.identity === identity) return listed.names
  const names = readdirSync(unitsDir).filter((name) => /^[^.].*\.json$/.test(name))
  if (names.length > MAX_RECORDS)
    throw new AgentError('MEASUREMENT_LIMIT', `expected at most ${MAX_RECORDS} unit records`)
  const paths = new Set(names.map((name) => join(unitsDir, name)))
  for (const path of parsed.keys()) if (!paths.has(path)) parsed.delete(path)
  for (const path of paths) readRecord(path)
  const settled = Date.now() - Number(directory.ctimeMs) > SETTLED_MS
  listed = settled ? { identity, names } : undefined
  return names
}

/** The contract of `record` with whether its process still runs what was launched. */
export function contractOf(record: UnitRecord): LaunchContract {
  return {
    executable: record.executable,
    arguments: [...record.arguments],
    uid: record.uid,
    gid: record.gid,
    noNewPrivs: record.noNewPrivs,
    pid: record.pid,
    startTicks: record.startTicks,
    intact: isIntact(record),
  }
}

function isIntact(record: UnitRecord): boolean {
  try {
    const instance = readInstance(record.pid)
    return (
      instance.startTicks === record.startTicks &&
      instance.startCode === record.startCode &&
      instance.device === record.executableDevice &&
      instance.inode === record.executableInode &&
      instance.startStack === record.startStack
    )
  } catch (error) {
    if (error instanceof AgentError && error.code === 'PROCESS_GONE') return false
    throw error
  }
}

function readRecord(path: string): UnitRecord | undefined {
  const last = parsed.get(path)
  if (last !== undefined) {
    const now = lstatSync(path, { bigint: true, throwIfNoEntry: false })
    if (now !== undefined && identityOf(now) === last.identity) return last.record
    parsed.delete(path)
  }
  let fd: number
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  } catch (cause) {
    // The unit ended between readdir and open.
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new AgentError('UNIT_RECORD', `cannot open ${quote(path)}`, { cause })
  }
  try {
    const stats = fstatSync(fd, { bigint: true })
    assertPrivate(path, { mode: Number(stats.mode), uid: Number(stats.uid) }, 0o600)
    if (!stats.isFile() || stats.size > MAX_RECORD_BYTES)
      throw new AgentError('UNIT_RECORD', `expected a file of at most ${MAX_RECORD_BYTES} bytes`)
    const record = parseExecRecord(readFileSync(fd, 'utf8'))
    if (Date.now() - Number(stats.ctimeMs) > SETTLED_MS)
      parsed.set(path, { identity: identityOf(stats), record })
    return record
  } finally {
    closeSync(fd)
  }
}

/** Changes with every change of the file, its owner and mode included; a link has another inode. */
function identityOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return `${dev}/${ino}/${size}/${mtimeNs}/${ctimeNs}`
}

function assertPrivate(path: string, stats: { mode: number; uid: number }, mode: number): void {
  // Root's whoever measures: `bagcheck exec` is root, the measurer need not be.
  if ((stats.mode & 0o7777) === mode && stats.uid === 0) return
  throw new AgentError(
    'UNIT_RECORD',
    `expected ${quote(path)} with mode ${mode.toString(8)} of root, ` +
      `saw mode ${(stats.mode & 0o7777).toString(8)} of user ${stats.uid}`,
  )
}

function unexpected(key: string, value: unknown): AgentError {
  return new AgentError(
    'UNIT_RECORD',
    `unexpected ${key || 'value'} in a unit record: ${quote(value)}`,
  )
}
