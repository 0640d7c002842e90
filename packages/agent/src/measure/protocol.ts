// What the front asks of the measurer and what it hears, as frames (channel.ts). Five questions:
//
//   {"id": N, "ask": "instance", "pid": P}        which program runs in this process
//   {"id": N, "ask": "check", "instance": {…}}    does it run there still
//   {"id": N, "ask": "measure", "instance": {…}}  all facts about its unit
//   {"id": N, "ask": "find", "unit": {launcher, name}}   the main processes of the units of that name
//   {"id": N, "ask": "hash", "instance": {…}, "request": {…}}
//                   content of paths of the store that the container of this first process brings
//
// and to each one answer with its id, in any order:
//
//   {"id": N, "ok": true, "instance" | "measurement": {…}}, {"id": N, "ok": true, "instances": […]}, {"id": N, "ok": true}
//   {"id": N, "ok": true, "hashes": […]}, of the first of the paths, at least one: the rest is asked again
//   {"id": N, "ok": false, "code": C, "message": M}
//
// Each member is checked by who receives it, and an unknown one is an error. Of a measurement the front
// checks what it reads itself; the rest it passes on unread, for the broker, whose schema is strict.
// One thing the measurer says unasked, where the kernel tells it: a unit changed since it was measured.
//
//   {"event": "changed", "cgroup": C, "pids": […], "change": "exec" | "credentials" | "ptrace" | "lost"}
import { storePathOf, type NarHash, type StorePath } from '@bagcheck/nix'
import { AGENT_ERROR_CODES, AgentError, quote, type AgentErrorCode } from '../error.ts'
import type { WantedUnit } from './find-units.ts'
import type {
  HashRequest,
  PathHash,
  ProcessInstance,
  SettledMeasurement,
  StoreMount,
} from './messages.ts'
import { UNIT_CHANGES, type UnitChange } from './watched-units.ts'

/** Store paths of one question: their names may have 211 characters. */
export const MAX_HASH_PATHS = 128
/** Largest question: one for so many paths. */
export const MAX_QUESTION_BYTES: number = 64 * 1024
/** Largest answer: some times what evidence may weigh, so that the broker says what is too much. */
export const MAX_ANSWER_BYTES: number = 32 * 1024 * 1024
/** Questions of one connection that wait for their answer. */
export const MAX_QUESTIONS = 4096
/** PID_MAX_LIMIT of 64-bit kernels. */
export const MAX_PID = 4_194_304
const MAX_PROCESSES = 1024

/** What the front asks. */
export type Asked =
  | { readonly ask: 'instance'; readonly pid: number }
  | { readonly ask: 'check' | 'measure'; readonly instance: ProcessInstance }
  | { readonly ask: 'find'; readonly unit: WantedUnit }
  | { readonly ask: 'hash'; readonly instance: ProcessInstance; readonly request: HashRequest }
/** That, as it is sent. */
export type Question = { readonly id: number } & Asked

/** What the measurer answers. */
export type Answer = { readonly id: number } & (
  | { readonly ok: true; readonly instance: ProcessInstance }
  | { readonly ok: true; readonly measurement: SettledMeasurement }
  | { readonly ok: true; readonly instances: readonly ProcessInstance[] }
  | { readonly ok: true; readonly hashes: readonly PathHash[] }
  | { readonly ok: true }
  | { readonly ok: false; readonly code: AgentErrorCode; readonly message: string }
)

/** What the measurer says unasked: the unit at `cgroup` is not what it was when it was last measured. */
export interface UnitChangedNotice {
  readonly cgroup: string
  /** What was measured. */
  readonly pids: readonly number[]
  readonly change: UnitChange
}

type Members = Readonly<Record<string, unknown>>

/** @throws {AgentError} MEASURER_PROTOCOL */
export function parseQuestion(frame: Members): Question {
  const id = parseCount(frame['id'], 'id')
  if (frame['ask'] === 'instance') {
    assertMembers(frame, ['id', 'ask', 'pid'])
    const pid = parseCount(frame['pid'], 'pid')
    if (pid < 1 || pid > MAX_PID) throw unexpected('pid', pid)
    return { id, ask: 'instance', pid }
  }
  if (frame['ask'] === 'find') {
    assertMembers(frame, ['id', 'ask', 'unit'])
    const unit = parseMembers(frame['unit'], 'unit')
    assertMembers(unit, ['launcher', 'name'])
    const { launcher, name } = unit
    if (launcher !== 'bagcheck-exec' && launcher !== 'systemd' && launcher !== 'oci')
      throw unexpected('launcher', launcher)
    const grammar = launcher === 'oci' ? /^[A-Za-z0-9_+.*-]{1,256}$/ : /^[A-Za-z0-9:_.@-]{1,256}$/
    if (typeof name !== 'string' || !grammar.test(name)) throw unexpected('name', name)
    return { id, ask: 'find', unit: { launcher, name } }
  }
  if (frame['ask'] === 'hash') {
    assertMembers(frame, ['id', 'ask', 'instance', 'request'])
    const instance = parseInstance(frame['instance'])
    return { id, ask: 'hash', instance, request: parseHashRequest(frame['request']) }
  }
  if (frame['ask'] !== 'check' && frame['ask'] !== 'measure') throw unexpected('ask', frame['ask'])
  assertMembers(frame, ['id', 'ask', 'instance'])
  return { id, ask: frame['ask'], instance: parseInstance(frame['instance']) }
}

/** @throws {AgentError} MEASURER_PROTOCOL */
export function parseAnswer(frame: Members): Answer {
  const id = parseCount(frame['id'], 'id')
  if (frame['ok'] === false) {
    assertMembers(frame, ['id', 'ok', 'code', 'message'])
    const { code, message } = frame
    if (!AGENT_ERROR_CODES.includes(code as AgentErrorCode)) throw unexpected('code', code)
    if (typeof message !== 'string') throw unexpected('message', message)
    return { id, ok: false, code: code as AgentErrorCode, message }
  }
  if (frame['ok'] !== true) throw unexpected('ok', frame['ok'])
  if (frame['instance'] !== undefined) {
    assertMembers(frame, ['id', 'ok', 'instance'])
    return { id, ok: true, instance: parseInstance(frame['instance']) }
  }
  if (frame['instances'] !== undefined) {
    assertMembers(frame, ['id', 'ok', 'instances'])
    const instances = parseList(frame['instances'], 'instances', MAX_PROCESSES).map(parseInstance)
    return { id, ok: true, instances }
  }
  if (frame['hashes'] !== undefined) {
    assertMembers(frame, ['id', 'ok', 'hashes'])
    const hashes = parseList(frame['hashes'], 'hashes', MAX_HASH_PATHS).map(parsePathHash)
    return { id, ok: true, hashes }
  }
  if (frame['measurement'] === undefined) {
    assertMembers(frame, ['id', 'ok'])
    return { id, ok: true }
  }
  assertMembers(frame, ['id', 'ok', 'measurement'])
  return { id, ok: true, measurement: parseMeasurement(frame['measurement']) }
}

/** The notice in a frame; undefined for an answer. @throws {AgentError} MEASURER_PROTOCOL */
export function parseNotice(frame: Members): UnitChangedNotice | undefined {
  if (frame['event'] === undefined) return undefined
  assertMembers(frame, ['event', 'cgroup', 'pids', 'change'])
  if (frame['event'] !== 'changed') throw unexpected('event', frame['event'])
  const change = UNIT_CHANGES.find((known) => known === frame['change'])
  if (change === undefined) throw unexpected('change', frame['change'])
  const pids = parseList(frame['pids'], 'pids', MAX_PROCESSES)
  return {
    cgroup: parseText(frame['cgroup'], 'cgroup'),
    pids: pids.map((pid) => parseCount(pid, 'pid')),
    change,
  }
}

function parseMeasurement(value: unknown): SettledMeasurement {
  const measurement = parseMembers(value, 'measurement')
  parseCount(measurement['measuredAtMs'], 'measuredAtMs')
  const unit = parseMembers(measurement['unit'], 'unit')
  for (const name of ['launcher', 'name', 'cgroup']) parseText(unit[name], name)
  if (unit['contract'] !== null) {
    const contract = parseMembers(unit['contract'], 'contract')
    parseText(contract['executable'], 'executable')
    for (const argument of parseList(contract['arguments'], 'arguments', 256))
      parseText(argument, 'argument')
  }
  const { init, containerStore } = measurement
  if ((init === null) !== (containerStore === null)) throw unexpected('init', init)
  if (init !== null) {
    parseInstance(init)
    parseStore(containerStore)
    const { userMaps } = parseMembers(unit['container'], 'container')
    const maps = userMaps === null ? { uids: [] } : parseMembers(userMaps, 'userMaps')
    for (const range of parseList(maps['uids'], 'uids', 1024)) {
      const { inside, outside } = parseMembers(range, 'range')
      parseCount(inside, 'inside')
      parseCount(outside, 'outside')
    }
  }
  for (const process of parseList(measurement['processes'], 'processes', MAX_PROCESSES)) {
    const { executable, files } = parseMembers(process, 'process')
    for (const file of [executable, ...parseList(files, 'files', 4096)])
      parseText(parseMembers(file, 'file')['path'], 'path')
  }
  return measurement as unknown as SettledMeasurement // what is read of it was looked at above
}

function parseHashRequest(value: unknown): HashRequest {
  const request = parseMembers(value, 'request')
  assertMembers(request, ['store', 'paths', 'maxAgeMs', 'owner'])
  const paths = parseList(request['paths'], 'paths', MAX_HASH_PATHS).map(parsePath)
  if (paths.length === 0) throw unexpected('paths', paths)
  return {
    store: parseStore(request['store']),
    paths,
    maxAgeMs: parseCount(request['maxAgeMs'], 'maxAgeMs'),
    owner: parseCount(request['owner'], 'owner'),
  }
}

function parseStore(value: unknown): StoreMount {
  const store = parseMembers(value, 'store')
  assertMembers(store, ['directory', 'device', 'place'])
  const { directory, device, place } = store
  return {
    directory: parseText(directory, 'directory'),
    device: parseText(device, 'device'),
    place: parseText(place, 'place'),
  }
}

function parsePathHash(value: unknown): PathHash {
  const hash = parseMembers(value, 'hash')
  assertMembers(hash, ['path', 'narHash', 'hashedAtMs', 'read', 'deviation'])
  const { narHash, read, deviation } = hash
  if (
    narHash !== null &&
    (typeof narHash !== 'string' || !/^sha256-[A-Za-z0-9+/]{43}=$/.test(narHash))
  )
    throw unexpected('narHash', narHash)
  if (typeof read !== 'boolean') throw unexpected('read', read)
  return {
    path: parsePath(hash['path']),
    narHash: narHash as NarHash | null, // its grammar was looked at above
    hashedAtMs: parseCount(hash['hashedAtMs'], 'hashedAtMs'),
    read,
    deviation: deviation === null ? null : parseText(deviation, 'deviation'),
  }
}

/** The path of an object of the store itself. */
function parsePath(value: unknown): StorePath {
  const path = parseText(value, 'path')
  if (storePathOf(path) === path) return path as StorePath
  throw unexpected('path', path)
}

function parseInstance(value: unknown): ProcessInstance {
  const instance = parseMembers(value, 'instance')
  const names = ['pid', 'startTicks', 'device', 'inode', 'startCode', 'startStack']
  assertMembers(instance, names)
  const matching = (name: string, grammar: RegExp): string => {
    const field = parseText(instance[name], name)
    if (grammar.test(field)) return field
    throw unexpected(name, field)
  }
  return {
    pid: parseCount(instance['pid'], 'pid'),
    startTicks: parseCount(instance['startTicks'], 'startTicks'),
    device: matching('device', /^\d{1,10}:\d{1,10}$/),
    inode: matching('inode', /^\d{1,20}$/),
    startCode: parseCount(instance['startCode'], 'startCode'),
    startStack: parseCount(instance['startStack'], 'startStack'),
  }
}

function assertMembers(value: Members, names: readonly string[]): void {
  const seen = Object.keys(value)
  if (seen.length !== names.length || !seen.every((name) => names.includes(name)))
    throw unexpected('members', seen)
}

function parseMembers(value: unknown, name: string): Members {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Members
  throw unexpected(name, value)
}

function parseList(value: unknown, name: string, max: number): readonly unknown[] {
  if (Array.isArray(value) && value.length <= max) return value as unknown[]
  throw unexpected(name, value)
}

function parseText(value: unknown, name: string): string {
  if (typeof value === 'string') return value
  throw unexpected(name, value)
}

function parseCount(value: unknown, name: string): number {
  if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number
  throw unexpected(name, value)
}

function unexpected(name: string, seen: unknown): AgentError {
  return new AgentError('MEASURER_PROTOCOL', `unexpected ${name}: ${quote(seen)}`)
}
