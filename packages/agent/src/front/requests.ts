// Bodies and queries of agent.sock. Strict: unknown members are errors, every string has a bound.
import type { IncomingMessage } from 'node:http'
import { AgentError, quote } from '../error.ts'
import { MAX_PID } from '../measure/protocol.ts'

const MAX_BODY_BYTES = 16 * 1024
const MAX_AUDIENCE_CHARACTERS = 512

/** `POST /v1/token`. */
export interface TokenRequest {
  readonly audience: string
  readonly ttlSeconds: number | null
  /** The profile that the caller expects its audience to have; null leaves it to the policy. */
  readonly profile: string | null
  readonly dpopProof: string | null
}

/** @throws {AgentError} REQUEST_INVALID */
export function parseTokenRequest(text: string): TokenRequest {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new AgentError('REQUEST_INVALID', 'expected JSON', { cause })
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new AgentError('REQUEST_INVALID', 'expected a JSON object')
  const {
    audience,
    ttlSeconds = null,
    profile = null,
    dpopProof = null,
    ...others
  } = value as Record<string, unknown>
  const [unknown] = Object.keys(others)
  if (unknown !== undefined)
    throw new AgentError('REQUEST_INVALID', `unknown member ${quote(unknown)}`)
  const isTtl = Number.isInteger(ttlSeconds) && (ttlSeconds as number) >= 1
  if (ttlSeconds !== null && !(isTtl && (ttlSeconds as number) <= 86_400))
    throw new AgentError('REQUEST_INVALID', 'expected ttlSeconds from 1 to 86400')
  if (profile !== null && !(typeof profile === 'string' && /^[!-~]{1,64}$/.test(profile)))
    throw new AgentError('REQUEST_INVALID', `expected the name of a profile, saw ${quote(profile)}`)
  if (dpopProof !== null && typeof dpopProof !== 'string')
    throw new AgentError('REQUEST_INVALID', 'expected dpopProof to be a string')
  return {
    audience: parseAudience(audience),
    ttlSeconds: ttlSeconds as number | null,
    profile,
    dpopProof,
  }
}

/** @throws {AgentError} REQUEST_INVALID */
export function parseAudience(value: unknown): string {
  if (
    typeof value === 'string' &&
    value.length <= MAX_AUDIENCE_CHARACTERS &&
    /^[!-~]+$/.test(value)
  )
    return value
  throw new AgentError('REQUEST_INVALID', `expected an audience, saw ${quote(value)}`)
}

/** Nothing that the measurer would not take for a question, and end the connection. @throws {AgentError} REQUEST_INVALID */
export function parsePid(value: string | null): number {
  if (value !== null && /^[1-9][0-9]{0,6}$/.test(value) && Number(value) <= MAX_PID)
    return Number(value)
  throw new AgentError('REQUEST_INVALID', `expected a process id, saw ${quote(value)}`)
}

/** The body of a JSON request. @throws {AgentError} REQUEST_INVALID, REQUEST_LIMIT */
export async function readJsonBody(request: IncomingMessage): Promise<string> {
  if (!/^application\/json(;\s*charset=utf-8)?$/i.test(request.headers['content-type'] ?? ''))
    throw new AgentError('REQUEST_INVALID', 'expected content-type application/json')
  const chunks: Buffer[] = []
  let total = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    total += chunk.length
    if (total > MAX_BODY_BYTES)
      throw new AgentError('REQUEST_LIMIT', `expected at most ${MAX_BODY_BYTES} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}
