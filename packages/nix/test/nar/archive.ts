// Archives for tests, token by token.

/** One string of a NAR. */
export function str(text: string | Uint8Array): Buffer {
  const bytes = typeof text === 'string' ? Buffer.from(text, 'latin1') : Buffer.from(text)
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(bytes.length))
  return Buffer.concat([length, bytes, Buffer.alloc(-bytes.length & 7)])
}

/** The tokens of an archive, with its magic. */
export function nar(...tokens: readonly string[]): Buffer {
  return Buffer.concat(['nix-archive-1', ...tokens].map(str))
}

/** The tokens of a regular file. */
export function regular(contents: string, executable = false): string[] {
  const mark = executable ? ['executable', ''] : []
  return ['(', 'type', 'regular', ...mark, 'contents', contents, ')']
}

/** The tokens of a symlink. */
export function symlink(target: string): string[] {
  return ['(', 'type', 'symlink', 'target', target, ')']
}

/** The tokens of a directory. */
export function directory(...entries: readonly (readonly [string, readonly string[]])[]): string[] {
  const body = entries.flatMap(([name, node]) => ['entry', '(', 'name', name, 'node', ...node, ')'])
  return ['(', 'type', 'directory', ...body, ')']
}
