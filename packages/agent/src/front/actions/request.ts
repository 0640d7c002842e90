// One request to `bagcheck-agent --actions`: one line of JSON, one line back. It names an action of the
// configuration and one of the units that this action lists, and nothing else can be said.
import { createConnection } from 'node:net'
import { AgentError, quote } from '../../error.ts'
import type { RootAction } from './config.ts'

export const ACTION_SCHEMA = 'bagcheck.action/v1'
export const MAX_LINE_BYTES = 1024
/** A rollback reads whole closures before it switches to one. */
export const ACTION_TIMEOUT_MS = { restart: 90_000, rollback: 20 * 60_000 } as const
const SLACK_MS = 30_000

/** @throws {AgentError} ACTION_FAILED */
export function requestAction(
  socketPath: string,
  { action, unit, what }: { action: string; unit: string; what: RootAction['do'] },
): Promise<void> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(socketPath)
    let text = ''
    const fail = (why: string, cause?: unknown): void => {
      socket.destroy()
      reject(new AgentError('ACTION_FAILED', `${action} on ${unit}: ${why}`, { cause }))
    }
    socket.setTimeout(ACTION_TIMEOUT_MS[what] + SLACK_MS, () => fail('no answer in time'))
    socket.on('error', (cause) => fail(`cannot reach ${socketPath}`, cause))
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString()
      if (text.length > MAX_LINE_BYTES) fail('its answer is too long')
    })
    socket.on('end', () => {
      if (text.trim() === '{"ok":true}') resolve()
      else fail(`it answered ${quote(text.trim())}`)
      socket.destroy()
    })
    socket.end(`${JSON.stringify({ schema: ACTION_SCHEMA, action, unit })}\n`)
  })
}
