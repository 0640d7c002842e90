// The fixed parts of an archive, each a run of strings that always come together.

/**
 * Strings as an archive holds them: length in 8 bytes, then the bytes, padded with zeros to 8. As words in the
 * machine's own order, because to copy a few of them in a loop costs less than a call that copies bytes.
 */
function token(...strings: readonly string[]): Int32Array {
  const bytes = Buffer.concat(
    strings.map((text) => {
      const bytes = Buffer.alloc(paddedBytes(text.length))
      bytes.writeUInt32LE(text.length)
      bytes.write(text, 8, 'latin1')
      return bytes
    }),
  )
  return new Int32Array(new Uint8Array(bytes).buffer)
}

/** How many bytes a string, or the contents of a file, takes in an archive. */
export function paddedBytes(length: number): number {
  return 8 + length + ((8 - (length % 8)) % 8)
}

export const MAGIC: Int32Array = token('nix-archive-1')
export const DIRECTORY: Int32Array = token('(', 'type', 'directory')
export const REGULAR: Int32Array = token('(', 'type', 'regular', 'contents')
export const EXECUTABLE: Int32Array = token('(', 'type', 'regular', 'executable', '', 'contents')
export const SYMLINK: Int32Array = token('(', 'type', 'symlink', 'target')
export const END: Int32Array = token(')')

/** Before the name of an entry, and between its name and its node. */
export const ENTRY: Int32Array = token('entry', '(', 'name')
export const NODE: Int32Array = token('node')
/** Where the node of an entry ends: the end of both. */
export const NODE_END: Int32Array = token(')', ')')
