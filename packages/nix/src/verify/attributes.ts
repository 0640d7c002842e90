// Extended attributes, which no NAR shows and Nix strips from what it adds to the store: file
// capabilities (`security.capability`), ACLs, anything a user set. Node cannot list them, so whoever can
// passes a function; where nobody does, the result says that they were not looked at.
//
// To set or remove one moves the file's ctime: once a path has been found without any, a later look
// needs to ask again only where something moved.
import { setImmediate } from 'node:timers/promises'
import { NixError, quote } from '../error.ts'
import { fromLatin1, fsPath } from '../file-name.ts'
import type { StorePath } from '../store-path.ts'
import type { Deviation } from './deviations.ts'
import { countEntries, NameCursor } from './snapshot.ts'
import type { Snapshot } from './snapshot.ts'

/**
 * The names of the extended attributes of a file, `security.capability` for one; as `llistxattr(2)` gives
 * them, links not followed, none where the file system has none. Throws when the system refuses.
 */
export type ReadAttributes = (file: string | Buffer) => readonly string[]

// What Nix itself leaves (its setting `ignored-acls`), the kernel's own integrity labels, and a property of
// one file system: none of them lets a program do more.
const HARMLESS: ReadonlySet<string> = new Set([
  'security.selinux',
  'security.csm',
  'system.nfs4_acl',
  'security.ima',
  'security.evm',
  'btrfs.compression',
])
const PIECE = 512

/**
 * Looks at every entry of `snapshot`, or at those at `indexes`, in pieces, so that other work goes on
 * between them.
 */
export async function findAttributes(
  path: StorePath,
  snapshot: Snapshot,
  read: ReadAttributes,
  signal: AbortSignal | undefined,
  indexes?: Uint32Array,
): Promise<Deviation[]> {
  const found: Deviation[] = []
  const names = new NameCursor(snapshot, path)
  const count = indexes?.length ?? countEntries(snapshot)
  for (let position = 0; position < count; position++) {
    const file = names.nameOf(indexes?.[position] ?? position)
    for (const deviation of attributesOf(file, read)) found.push(deviation)
    if (position % PIECE !== PIECE - 1) continue
    await setImmediate()
    signal?.throwIfAborted()
  }
  return found
}

/** What `file` (one code unit per byte) has that it should not have. */
function attributesOf(latin1: string, read: ReadAttributes): Deviation[] {
  const names = readNames(latin1, read).filter((name) => !HARMLESS.has(name))
  const expected = 'no extended attributes'
  if (names.length === 0) return []
  return [{ file: fromLatin1(latin1), kind: 'attribute', expected, seen: names.join(' ') }]
}

function readNames(latin1: string, read: ReadAttributes): readonly string[] {
  try {
    return read(fsPath(latin1))
  } catch (cause) {
    const file = fromLatin1(latin1)
    const reason = cause instanceof Error ? cause.message : String(cause)
    const message = `expected to read the attributes of ${quote(file)}: ${reason}`
    throw new NixError('STORE_READ', message, { cause, detail: { file } })
  }
}
