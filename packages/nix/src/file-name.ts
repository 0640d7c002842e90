// File names are bytes; strings are not. A name that is UTF-8 is the string that `node:fs` also gives.
// In a component that is not, every byte from 0x80 on becomes a lone surrogate, U+DC80 to U+DCFF (as in
// Python's "surrogateescape"): no two names share a string, none is lost, and `node:fs`, given such a
// string, finds nothing rather than another file. Use `encodeFileName` to reach the file.

const ESCAPED = /[\udc80-\udcff]/u // with `u`, half of a surrogate pair does not match
// oxlint-disable-next-line no-control-regex
const NOT_ASCII = /[^\0-\x7f]/
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** The string for a file name or path; one to one, also for bytes that are not UTF-8. */
export function decodeFileName(bytes: Uint8Array): string {
  return fromLatin1(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1'))
}

/** The bytes of a file name or path that {@link decodeFileName} made. */
export function encodeFileName(name: string): Buffer {
  if (!ESCAPED.test(name)) return Buffer.from(name, 'utf8')
  const parts = name
    .split(/([\udc80-\udcff])/u)
    .map((part) =>
      ESCAPED.test(part) ? Buffer.of(part.charCodeAt(0) & 0xff) : Buffer.from(part, 'utf8'),
    )
  return Buffer.concat(parts)
}

/** As {@link decodeFileName}, from a string whose code units are the bytes (`latin1`). */
export function fromLatin1(name: string): string {
  if (!NOT_ASCII.test(name)) return name
  return name.split('/').map(decodeComponent).join('/')
}

/** What `node:fs` takes for a path whose code units are the bytes: the string itself while ASCII. */
export function fsPath(latin1: string): string | Buffer {
  return NOT_ASCII.test(latin1) ? Buffer.from(latin1, 'latin1') : latin1
}

function decodeComponent(component: string): string {
  try {
    return utf8.decode(Buffer.from(component, 'latin1'))
  } catch {
    // Not UTF-8: keep the bytes.
    return component.replace(/[\x80-\xff]/g, (c) => String.fromCharCode(0xdc00 + c.charCodeAt(0)))
  }
}
