// The agent's socket: HTTP/1.1 and JSON, as any workload speaks to it.
import { request } from 'node:http'
import { CliError } from './error.ts'

export const AGENT_OPTIONS = {
  agent: {
    type: 'string',
    value: 'SOCKET',
    default: '/run/bagcheck/agent.sock',
    environment: 'BAGCHECK_AGENT_SOCKET',
    help: "the agent's socket",
  },
} as const

const MAX_ANSWER_BYTES = 1024 * 1024
const TIMEOUT_MS = 30_000

/**
 * One exchange with the agent.
 * @throws {CliError} AGENT_UNREACHABLE; the reason of `signal` once that has fired
 */
export function askAgent(
  socket: string,
  signal: AbortSignal,
  method: 'GET' | 'POST',
  path: string,
  body?: unknown,
): Promise<{ status: number; body: unknown }> {
  const timeout = AbortSignal.timeout(TIMEOUT_MS)
  return new Promise((resolve, reject) => {
    const fail = (failed: Error): void => {
      if (signal.aborted) return reject(signal.reason as Error)
      const error = timeout.aborted
        ? new Error(`no answer within ${TIMEOUT_MS / 1000} s`, { cause: failed })
        : failed
      reject(
        new CliError('AGENT_UNREACHABLE', `agent at ${socket}: ${error.message}${hint(error)}`, {
          cause: error,
        }),
      )
    }
    const call = request(
      {
        socketPath: socket,
        method,
        path,
        headers: { 'content-type': 'application/json' },
        signal: AbortSignal.any([signal, timeout]),
      },
      (response) => {
        const chunks: Buffer[] = []
        let size = 0
        response.on('data', (chunk: Buffer) => {
          size += chunk.length
          if (size > MAX_ANSWER_BYTES) call.destroy(new Error('its answer is too long'))
          chunks.push(chunk)
        })
        response.on('error', fail)
        response.on('end', () => {
          try {
            const value: unknown = JSON.parse(Buffer.concat(chunks).toString('utf8'))
            resolve({ status: response.statusCode ?? 0, body: value })
          } catch {
            fail(new Error('its answer is not JSON'))
          }
        })
      },
    )
    call.on('error', fail)
    call.end(body === undefined ? undefined : JSON.stringify(body))
  })
}

function hint({ code }: NodeJS.ErrnoException): string {
  if (code === 'ENOENT' || code === 'ECONNREFUSED')
    return '; start bagcheck-agent, or name its socket with --agent'
  if (code?.startsWith('HPE_')) return '; is it agent.sock? (spiffe.sock speaks gRPC)'
  return code === 'EACCES' ? '; every user must be able to enter its directory' : ''
}
