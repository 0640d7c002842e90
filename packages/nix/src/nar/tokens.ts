// The fixed parts of an archive, each a run of strings that always come together.

/** Strings as an archive holds them: length in 8 bytes, then the bytes, padded with zeros to 8. */
function token(...strings: readonly string[]): Buffer {
  return Buffer.concat(
    strings.map((text) => {
      const bytes = Buffer.alloc(paddedBytes(text.length))
      bytes.writeUInt32LE(text.length)
      bytes.write(text, 8, 'latin1')
      return bytes
    }),
  )
}

/** How many bytes a string, or the contents of a file, takes in an archive. */
export function paddedBytes(length: number): number {
  return 8 + length + ((8 - (length % 8)) % 8)
}

export const MAGIC: Buffer = token('nix-archive-1')
export const DIRECTORY: Buffer = token('(', 'type', 'directory')
export const REGULAR: Buffer = token('(', 'type', 'regular', 'contents')
export const EXECUTABLE: Buffer = token('(', 'type', 'regular', 'executable', '', 'contents')
export const SYMLINK: Buffer = token('(', 'type', 'symlink', 'target')
export const END: Buffer = token(')')

/** Before the name of an entry, and between its name and its node. */
export const ENTRY: Buffer = token('entry', '(', 'name')
export const NODE: Buffer = token('node')
/** After the node of an entry that is not a directory: the end of both. */
export const NODE_END: Buffer = token(')', ')')
