// The extended attributes of a file, which Node cannot list: llistxattr(2) through koffi.
import { getSystemErrorName } from 'node:util'
import koffi from 'koffi'

// <asm-generic/errno.h>
const [ENODATA, ENOTSUP] = [61, 95]
const MAX_BYTES = 65_536 // XATTR_LIST_MAX

const libc = koffi.load(null)
const byName = libc.func('long llistxattr(const char *, _Out_ uint8_t *, size_t)')
const byBytes = libc.func('long llistxattr(const uint8_t *, _Out_ uint8_t *, size_t)')

/** The names of a file's extended attributes, links not followed; none where there cannot be any. */
export function listAttributes(file: string | Buffer): readonly string[] {
  if (list(file, null) === 0) return [] // nearly always, and cheaper than with a buffer
  const names = Buffer.alloc(MAX_BYTES)
  const size = list(file, names)
  return names.toString('latin1', 0, size).split('\0').slice(0, -1)
}

function list(file: string | Buffer, into: Buffer | null): number {
  const bytes = into?.length ?? 0
  const size = Number(
    typeof file === 'string'
      ? byName(file, into, bytes)
      : byBytes(Buffer.concat([file, Buffer.alloc(1)]), into, bytes),
  )
  if (size >= 0) return size
  const errno = koffi.errno()
  if (errno === ENODATA || errno === ENOTSUP) return 0
  throw new Error(`llistxattr: ${getSystemErrorName(-errno)}`)
}
