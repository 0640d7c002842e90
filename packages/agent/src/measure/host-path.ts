// Paths of the host are those that PID 1 knows. The measurer may be in a mount namespace of its own, in which its
// service manager hid some of them and put others in their place; and the kernel follows a link that is absolute
// from our own root, even below /proc/1/root. So links on the way are followed here.
import { lstatSync, readlinkSync, type Stats } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { AgentError, quote } from '../error.ts'

/** Whose mounts and namespaces are the host's. */
export const HOST_PID = 1
const HOST_ROOT = `/proc/${HOST_PID}/root`
/** As in the kernel. */
const MAX_LINKS = 40

/** A path of the host, without a link on the way, as it is opened from here. */
export const onHost = (path: string): string => `${HOST_ROOT}${path}`

/**
 * Where a path of the host leads: a path without a link on the way. What is not there leads to where it would be.
 * @param visit is shown all that lies on the way, `/` first; undefined for what is not there
 * @throws {AgentError} UNIT_RECORD if links lead nowhere
 */
export function followLinks(
  path: string,
  visit: (at: string, stats: Stats | undefined) => void = () => undefined,
): string {
  let links = 0
  let at = '/'
  let parts = namesOf(path)
  visit(at, lstatSync(onHost(at)))
  while (parts.length > 0) {
    const [part = '', ...rest] = parts
    const next = join(at, part)
    const stats = lstatSync(onHost(next), { throwIfNoEntry: false })
    visit(next, stats)
    if (stats?.isSymbolicLink() === true) {
      links += 1
      if (links > MAX_LINKS)
        throw new AgentError('UNIT_RECORD', `expected an end of links behind ${quote(path)}`)
      parts = [...namesOf(resolve(dirname(next), readlinkSync(onHost(next)))), ...rest]
      at = '/'
    } else {
      at = next
      parts = rest
    }
  }
  return at
}

const namesOf = (path: string): string[] => path.split('/').filter((name) => name !== '')
