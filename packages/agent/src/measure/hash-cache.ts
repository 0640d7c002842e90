// SHA-256 of files by identity. Only files on the store's own mount are remembered, and only while
// device, inode, size and change time (nanoseconds) stay: a store file is never written in place, and
// who can forge a change time is root, which tier 0 does not beat. Everything else is read each time.
import { createHash } from 'node:crypto'
import { fstatSync, readSync, type BigIntStats } from 'node:fs'
import { AgentError } from '../error.ts'
import type { Budget } from './budget.ts'

const MAX_ENTRIES = 16_384
const CHUNK_BYTES = 256 * 1024

// One for all files: a buffer each would be garbage that the heap does not count.
const chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES)

/** Bounded; the oldest entry goes first. */
export class HashCache {
  readonly #entries = new Map<string, string>()

  /**
   * sha256 (hex) of the file open at `fd`; `budget` pays for what has to be read.
   * @throws {AgentError} MEASUREMENT_LIMIT, FILE_UNREADABLE if the file changes while it is read
   */
  hash(fd: number, onStore: boolean, budget: Budget): string {
    const before = fstatSync(fd, { bigint: true })
    const key = identity(before)
    const known = onStore ? this.#entries.get(key) : undefined
    if (known !== undefined) return known
    budget.spendBytes(before.size)
    const sha256 = hashDescriptor(fd, before.size, budget)
    if (identity(fstatSync(fd, { bigint: true })) !== key)
      throw new AgentError('FILE_UNREADABLE', 'a mapped file changed while it was read')
    if (onStore) this.#remember(key, sha256)
    return sha256
  }

  #remember(key: string, sha256: string): void {
    if (this.#entries.size >= MAX_ENTRIES) {
      const oldest = this.#entries.keys().next().value
      if (oldest !== undefined) this.#entries.delete(oldest)
    }
    this.#entries.set(key, sha256)
  }
}

function identity(stats: BigIntStats): string {
  return `${stats.dev}/${stats.ino}/${stats.size}/${stats.mtimeNs}/${stats.ctimeNs}`
}

function hashDescriptor(fd: number, size: bigint, budget: Budget): string {
  const hash = createHash('sha256')
  let position = 0
  for (;;) {
    const read = readSync(fd, chunk, 0, CHUNK_BYTES, position)
    if (read === 0) break
    position += read
    budget.checkTime()
    if (BigInt(position) > size)
      throw new AgentError('FILE_UNREADABLE', 'a mapped file grew while it was read')
    hash.update(chunk.subarray(0, read))
  }
  return hash.digest('hex')
}
