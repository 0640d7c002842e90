// xz, which Nix writes unless told otherwise: xz-embedded in WebAssembly, from the package `xz-decompress`. The
// module imports nothing, so it reaches no more than its own memory, and what it says is compared with the
// NAR hash by the caller. As the program `xz` it reads streams that follow each other and refuses what is cut off or
// followed by something else; a dictionary of more than 64 MiB (that of `xz -9`), filters other than LZMA2 and checks
// other than CRC are refused too, which no Nix writes. It decodes one file at a time in a process, and one
// that is let go has to be cancelled: otherwise the next waits for ever.
import xz from 'xz-decompress' // CommonJS, without named exports

/** Decodes a file in xz; see `NarDecoder`. */
export async function* decodeXz(
  chunks: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void, undefined> {
  const source = chunks[Symbol.asyncIterator]()
  let empty = true
  const pull = async (controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
    for (;;) {
      const { done, value } = await source.next()
      if (done === true && empty) throw new Error('the file is empty')
      if (done === true) return controller.close()
      if (value.length === 0) continue // to the decoder, that would be the end
      empty = false
      return controller.enqueue(value)
    }
  }
  const input = new ReadableStream<Uint8Array>({ pull }, { highWaterMark: 0 }) // nothing is read ahead
  const output = new xz.XzReadableStream(input).getReader()
  try {
    for (;;) {
      const { done, value } = await output.read()
      if (done) return
      if (value.length > 0) yield value
    }
  } finally {
    await output.cancel().catch(() => undefined) // whatever failed was thrown by `read`
    await source.return?.()
  }
}
