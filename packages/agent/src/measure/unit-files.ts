// The files that PID 1 has a service's settings from. A unit of a closure is mostly a chain of links, such as
// /etc/systemd/system/orders.service → /etc/static/… → /nix/store/…/orders.service: PID 1 tells the first
// name, and keeps what it read when it last looked. Files of the store all have one modification time, by
// which it cannot see that a link leads elsewhere by now (NeedDaemonReload), so the links' own times are
// compared with when it looked.
import { createHash } from 'node:crypto'
import { lstatSync, readlinkSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { STORE_DIR } from '@bagcheck/nix'
import { AgentError, quote } from '../error.ts'
import type { ServiceFacts } from './messages.ts'
import { readBounded } from './root-only.ts'

/** A unit file, as evidence carries it. */
export type UnitFile = ServiceFacts['dropIns'][number]

const MAX_UNIT_BYTES = 1024 * 1024
/** As in the kernel. */
const MAX_LINKS = 40

/** Where a path leads, and when the newest link on the way was made, in ms since the epoch; 0 without links. */
export function followLinks(path: string): {
  readonly file: string
  readonly newestLinkMs: number
} {
  let newestLinkMs = 0
  let links = 0
  let at = '/'
  let parts = path.split('/').filter((part) => part !== '')
  while (parts.length > 0) {
    const [part = '', ...rest] = parts
    const next = join(at, part)
    const stats = lstatSync(next, { throwIfNoEntry: false })
    if (stats?.isSymbolicLink() === true) {
      links += 1
      if (links > MAX_LINKS)
        throw new AgentError('UNIT_RECORD', `expected an end of links behind ${quote(path)}`)
      newestLinkMs = Math.max(newestLinkMs, stats.ctimeMs)
      const target = resolve(dirname(next), readlinkSync(next))
      parts = [...target.split('/').filter((name) => name !== ''), ...rest]
      at = '/'
    } else {
      at = next
      parts = rest
    }
  }
  return { file: at, newestLinkMs }
}

/**
 * A unit file by the name that PID 1 gives it. One that is gone, or too large, has no bytes and is no file of
 * the store: what PID 1 once read from it is still in force.
 * @throws {AgentError} UNIT_RECORD
 */
export function readUnitFile(path: string): {
  readonly fact: UnitFile
  readonly changedMs: number
} {
  const { file, newestLinkMs } = followLinks(path)
  const read = readBounded(file, MAX_UNIT_BYTES)
  const bytes = read?.bytes ?? Buffer.alloc(0)
  const isStoreFile = read !== undefined && file.startsWith(`${STORE_DIR}/`)
  const sha256 = createHash('sha256').update(bytes).digest('hex') as UnitFile['sha256']
  return {
    fact: { path: path.slice(0, 4096), file: file.slice(0, 4096), sha256, isStoreFile },
    // A file of the store has a change time of its own making (links to it are made and go).
    changedMs: isStoreFile
      ? newestLinkMs
      : Math.max(newestLinkMs, Number(read?.stats.ctimeMs ?? 0)),
  }
}
