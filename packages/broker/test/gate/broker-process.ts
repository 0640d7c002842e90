// The real executable, started with an installation's configuration and spoken to over its sockets.
import { spawn, type ChildProcess } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { join, resolve } from 'node:path'
import { createInterface } from 'node:readline'
import type { Installation, Transport } from './installation.ts'

const MAIN = resolve(import.meta.dirname, '../../src/main.ts')

/** A broker that listens. */
export interface BrokerProcess extends AsyncDisposable {
  readonly listen: string
  readonly admin: string
  readonly child: ChildProcess
  /** Resolves when it is gone: exit code, or the signal that ended it. */
  readonly gone: Promise<number | string>
  /** What it wrote to standard error so far. */
  stderr(): string
}

/** Starts the broker; rejects with what it said if it does not come up. */
export async function startBroker(
  self: Pick<Installation, 'dir' | 'config'>,
  change: object = {},
): Promise<BrokerProcess> {
  const file = join(self.dir, `config-${Math.random().toString(36).slice(2)}.json`)
  // The checked configuration has absolute paths; written again it means the same.
  const { store } = self.config
  const written =
    'sqlite' in store ? { sqlite: store.sqlite.file } : { postgres: store.postgres.url }
  writeFileSync(file, JSON.stringify({ ...self.config, store: written, ...change }))
  const child = spawn(process.execPath, ['-C', '@bagcheck/source', MAIN, '--config', file], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let stderr = ''
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
  const { promise: gone, resolve: left } = Promise.withResolvers<number | string>()
  child.once('close', (code, signal) => left(code ?? signal ?? 'unknown'))
  const lines = createInterface({ input: child.stdout })
  const { promise: ready, resolve: told } = Promise.withResolvers<string>()
  lines.once('line', told)
  const first = await Promise.race([ready, gone])
  if (typeof first !== 'string' || !first.startsWith('{'))
    throw new Error(`the broker did not start (${first}): ${stderr}`)
  const { listen, admin } = JSON.parse(first) as { listen: string; admin: string }
  return {
    listen,
    admin,
    child,
    gone,
    stderr: () => stderr,
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGTERM')
      await gone
    },
  }
}

/** Sends over a unix socket; rejects when the other side dies. */
export function overSocket(socketPath: string): Transport {
  return (path, init) => {
    const { promise, resolve: answer, reject } = Promise.withResolvers<Response>()
    const headers = (init.headers ?? {}) as Record<string, string>
    const options = { socketPath, path, method: init.method, headers, agent: false as const }
    const outgoing = httpRequest(options, (message) => {
      const chunks: Buffer[] = []
      message.on('data', (chunk: Buffer) => chunks.push(chunk))
      message.once('error', reject)
      message.once('end', () => {
        const { statusCode: status = 0, headers: received } = message
        const body = status === 304 ? null : Buffer.concat(chunks)
        answer(new Response(body, { status, headers: received as Record<string, string> }))
      })
    })
    outgoing.once('error', reject)
    outgoing.end(init.body)
    return promise
  }
}
