// Decoders for archives of binary caches that Node cannot read: one of our own for xz, and for others the
// programs that everyone has for them, each in a process of its own. What comes out is bounded and hashed by
// whoever asks for it.
import { spawn } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { delimiter, join } from 'node:path'
import { Readable } from 'node:stream'
import type { NarDecoder } from '@bagcheck/nix'
import { decodeXz } from './decode-xz.ts'

/** The format that a binary cache names, and the program that reads it from standard input. */
const PROGRAMS = { bzip2: 'bzip2', lzip: 'lzip', lz4: 'lz4' } as const

/** Decoders for xz and for the formats whose program is in `path`, the value of PATH. */
export function findDecoders(path: string | undefined): Readonly<Record<string, NarDecoder>> {
  const directories = (path ?? '').split(delimiter).filter((directory) => directory.startsWith('/'))
  const programs = Object.fromEntries(
    Object.entries(PROGRAMS).flatMap(([format, program]): [string, NarDecoder][] => {
      const file = directories.map((directory) => join(directory, program)).find(isExecutable)
      return file === undefined ? [] : [[format, (chunks) => decode(file, chunks)]]
    }),
  )
  return { ...programs, xz: decodeXz }
}

async function* decode(
  program: string,
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const child = spawn(program, ['-dc'], { stdio: ['pipe', 'pipe', 'ignore'], env: {} })
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  ended.catch(() => undefined) // reported below
  const source = Readable.from(chunks)
  let failure: unknown
  source.once('error', (error) => {
    failure = error
    child.kill()
  })
  child.stdin.once('error', () => undefined) // it ended early; its exit code tells
  source.pipe(child.stdin)
  try {
    yield* child.stdout as AsyncIterable<Uint8Array>
    const code = await ended
    if (failure !== undefined) throw failure
    if (code !== 0) throw new Error(`${program} ended with ${code}`)
  } finally {
    source.destroy()
    child.kill()
  }
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false // not in this directory
  }
}
