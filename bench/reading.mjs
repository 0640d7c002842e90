// The least that verifying a store takes in Node: lists, opens, looks at, reads and hashes every file of the paths that
// it is given, largest first, on two threads. No archive, no metadata kept, nothing compared. `verify` runs it as a peer:
// what is above it is ours, and what is in it is not. Plain JavaScript: to strip types would take its time, too.
import { createHash } from 'node:crypto'
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
} from 'node:fs'
import { isMainThread, Worker, workerData } from 'node:worker_threads'

const BUFFER_BYTES = 1 << 20
const FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
const BIGINT = { bigint: true }

const buffer = Buffer.allocUnsafeSlow(BUFFER_BYTES)
let filled = 0

function readFile(path, hash) {
  const fd = openSync(path, FLAGS)
  for (let left = Number(fstatSync(fd, BIGINT).size); left > 0;) {
    if (filled === BUFFER_BYTES) flush(hash)
    const count = readSync(fd, buffer, filled, Math.min(left, BUFFER_BYTES - filled), null)
    if (count === 0) throw new Error(`${path} shrank`)
    filled += count
    left -= count
  }
  closeSync(fd)
}

function readTree(path, hash) {
  const stat = lstatSync(path, BIGINT)
  if (stat.isFile()) return readFile(path, hash)
  if (stat.isSymbolicLink()) return readlinkSync(path)
  const entries = readdirSync(path, { withFileTypes: true })
  entries.sort((a, b) => (a.name < b.name ? -1 : 1))
  for (const entry of entries)
    if (entry.isFile()) readFile(`${path}/${entry.name}`, hash)
    else readTree(`${path}/${entry.name}`, hash)
}

function flush(hash) {
  hash.update(buffer.subarray(0, filled))
  filled = 0
}

// `next` is the number of the path that neither thread has taken.
function work({ paths, next }) {
  for (;;) {
    const path = paths[Atomics.add(next, 0, 1)]
    if (path === undefined) return
    const hash = createHash('sha256')
    readTree(path, hash)
    flush(hash)
    hash.digest()
  }
}

const given = isMainThread
  ? { paths: process.argv.slice(2), next: new Int32Array(new SharedArrayBuffer(4)) }
  : workerData
if (isMainThread) new Worker(new URL(import.meta.url), { workerData: given })
work(given)
