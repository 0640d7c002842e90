// The inverse of the reader: events in, the bytes of the archive out. What it is given is held to the
// rules that the reader enforces, so an archive that it writes can be read by every Nix.
import { NixError } from '../error.ts'
import { encodeFileName } from '../file-name.ts'
import type { NarEvent } from './reader.ts'
import { findNameBreach, findTargetBreach, NAR_MAX_DEPTH } from './rules.ts'
import type { Breach } from './rules.ts'

/** An open directory: what may come next in it. */
interface Frame {
  last: Buffer | undefined
  /** An `entry` was given and not yet its object. */
  entered: boolean
}

/**
 * The archive that `events` describe, as `readNar` gives them. Nothing is buffered beyond one piece.
 *
 * @throws {NixError} NAR_NAME, NAR_ORDER, NAR_TARGET, NAR_LIMIT – a tree that has no archive
 * @throws {TypeError} events that are not in the order of a tree, or chunks that are not as long as the
 * file's size
 */
export async function* encodeNar(
  events: AsyncIterable<NarEvent> | Iterable<NarEvent>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const open: Frame[] = []
  let started = false
  /** Bytes that the current file still lacks; undefined when none is open. */
  let left: number | undefined
  let size = 0
  yield strings('nix-archive-1')
  for await (const event of events) {
    if (left !== undefined && left > 0 && event.type !== 'chunk')
      throw new TypeError(`the file lacks ${left} bytes of ${size}`)
    const frame = open.at(-1)
    switch (event.type) {
      case 'entry': {
        if (frame === undefined || frame.entered) throw new TypeError('an entry out of place')
        const name = encodeFileName(event.name)
        refuse(findNameBreach(name, frame.last))
        frame.last = name
        frame.entered = true
        yield Buffer.concat([strings('entry', '(', 'name'), string(name), strings('node')])
        break
      }
      case 'end':
        if (frame === undefined || frame.entered) throw new TypeError('an end out of place')
        open.pop()
        yield closing(open)
        break
      case 'chunk':
        if (left === undefined || event.bytes.length > left)
          throw new TypeError('a chunk beyond the size of the file')
        left -= event.bytes.length
        yield event.bytes
        if (left > 0) break
        left = undefined
        yield Buffer.concat([Buffer.alloc(-size & 7), closing(open)])
        break
      case 'directory':
        begin()
        open.push({ last: undefined, entered: false })
        yield strings('(', 'type', 'directory')
        break
      case 'symlink': {
        begin()
        const target = encodeFileName(event.target)
        refuse(findTargetBreach(target))
        yield Buffer.concat([
          strings('(', 'type', 'symlink', 'target'),
          string(target),
          closing(open),
        ])
        break
      }
      case 'regular': {
        begin()
        size = event.size
        if (!Number.isSafeInteger(size) || size < 0) throw new TypeError('a size is not negative')
        left = size > 0 ? size : undefined
        const mode = event.executable ? ['executable', ''] : []
        yield Buffer.concat([
          strings('(', 'type', 'regular', ...mode, 'contents'),
          number(size),
          ...(size === 0 ? [closing(open)] : []),
        ])
        break
      }
    }
  }
  if (!started || open.length > 0 || left !== undefined)
    throw new TypeError('events end before their tree is complete')

  /** An object may start: as the root, once, or after its entry. */
  function begin(): void {
    const frame = open.at(-1)
    if (frame === undefined ? started : !frame.entered)
      throw new TypeError('an object out of place')
    if (open.length >= NAR_MAX_DEPTH)
      refuse({
        code: 'NAR_LIMIT',
        message: `expected at most ${NAR_MAX_DEPTH} levels of directories`,
      })
    started = true
    if (frame !== undefined) frame.entered = false
  }
}

/** Ends an object and, inside a directory, its entry. */
function closing(open: readonly Frame[]): Buffer {
  return open.length > 0 ? strings(')', ')') : strings(')')
}

function refuse(breach: Breach | undefined): void {
  if (breach !== undefined) throw new NixError(breach.code, breach.message)
}

function strings(...texts: readonly string[]): Buffer {
  return Buffer.concat(texts.map((text) => string(Buffer.from(text, 'latin1'))))
}

function string(bytes: Uint8Array): Buffer {
  return Buffer.concat([number(bytes.length), bytes, Buffer.alloc(-bytes.length & 7)])
}

function number(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}
