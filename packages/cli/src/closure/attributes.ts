// Extended attributes, which Node cannot list: llistxattr(2) through koffi. It is native, so that where it
// is missing (another libc, a machine without the package) a verification says that it did not check them.
import { getSystemErrorName } from 'node:util'
import type { ReadAttributes } from '@bagcheck/nix'

const [ENODATA, ENOTSUP] = [61, 95]
const MAX_BYTES = 65_536 // XATTR_LIST_MAX

/** The function that reads them; `undefined` where there is none. */
export async function loadAttributeReader(): Promise<ReadAttributes | undefined> {
  let koffi
  try {
    koffi = (await import('koffi')).default
  } catch {
    return undefined // no such package, or not for this machine
  }
  const libc = koffi.load(null)
  const byName = libc.func('long llistxattr(const char *, _Out_ uint8_t *, size_t)')
  const byBytes = libc.func('long llistxattr(const uint8_t *, _Out_ uint8_t *, size_t)')
  const list = (file: string | Buffer, into: Buffer | null): number => {
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
  return (file) => {
    if (list(file, null) === 0) return []
    const names = Buffer.alloc(MAX_BYTES)
    const size = list(file, names)
    return names.toString('latin1', 0, size).split('\0').slice(0, -1)
  }
}
