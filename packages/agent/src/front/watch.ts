// `GET /v1/watch`: server-sent events of one session (HTML §9.2). The stream belongs to the process
// instance that opened it; each event is written only after another look at that instance. A comment
// every few seconds shows both ends that the other is there.
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Callers } from './callers.ts'
import { tokenBody, type Session, type SessionEvent } from './session.ts'

const KEEP_ALIVE_MS = 10_000
/** A reader that has this much unread is not reading. */
const MAX_BUFFERED_BYTES = 256 * 1024

/** Takes `response` over and writes the events of `session` until either end is gone. */
export function streamEvents(
  request: IncomingMessage,
  response: ServerResponse,
  session: Session,
  callers: Callers,
): void {
  const { socket } = request
  response.writeHead(200, {
    'content-type': 'text/event-stream',
    'cache-control': 'no-store',
    connection: 'close',
  })
  response.flushHeaders()
  let last = Promise.resolve()
  const write = (text: string): void => {
    last = last.then(async () => {
      try {
        await callers.check(socket)
      } catch {
        // Another program holds the connection now, or nobody, or that cannot be told: it hears nothing more.
        socket.destroy()
        return
      }
      if (response.writableLength > MAX_BUFFERED_BYTES) socket.destroy()
      else response.write(text)
    })
  }
  const listener = (event: SessionEvent): void => {
    const data = event.kind === 'token' ? tokenBody(event.token) : event.refusal.problem
    write(`event: ${event.kind}\ndata: ${JSON.stringify(data)}\n\n`)
  }
  const keepAlive = setInterval(() => write(': keep-alive\n\n'), KEEP_ALIVE_MS)
  const stop = session.watch(listener, () => socket.destroy())
  response.once('close', () => {
    clearInterval(keepAlive)
    stop()
  })
}
