// The files that PID 1 has a service's settings from. A unit of a closure is mostly a chain of links, such as
// /etc/systemd/system/orders.service → /etc/static/… → /nix/store/…/orders.service: PID 1 tells the first
// name, and keeps what it read when it last looked. Files of the store all have one modification time, by
// which it cannot see that a link leads elsewhere by now (NeedDaemonReload), so the links' own times are
// compared with when it looked.
import { createHash } from 'node:crypto'
import { STORE_DIR } from '@bagcheck/nix'
import { followLinks } from './host-path.ts'
import type { ServiceFacts } from './messages.ts'
import { readBounded } from './root-only.ts'

/** A unit file, as evidence carries it. */
export type UnitFile = ServiceFacts['dropIns'][number]

const MAX_UNIT_BYTES = 1024 * 1024

/**
 * A unit file by the name that PID 1 gives it. One that is gone, or too large, has no bytes and is no file of
 * the store: what PID 1 once read from it is still in force.
 * @throws {AgentError} UNIT_RECORD
 */
export function readUnitFile(path: string): {
  readonly fact: UnitFile
  readonly changedMs: number
} {
  let newestLinkMs = 0
  const file = followLinks(path, (_at, stats) => {
    if (stats?.isSymbolicLink() === true) newestLinkMs = Math.max(newestLinkMs, stats.ctimeMs)
  })
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
