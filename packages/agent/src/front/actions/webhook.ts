// Tells another system of a denial: a JWS by the node key, so that whoever gets it can tell who says so and for
// whom (`aud` is the configured URL). Only that URL is asked: redirects are an answer like any other that is not
// 2xx, and nothing of the denial gets into the address. What is not taken after some tries is a dead letter, the
// newest of which are kept.
import { randomUUID } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'
import { AgentError } from '../../error.ts'
import { signJws, type SigningKey } from '../jws.ts'
import type { Denial } from '../outcomes.ts'
import { writeFile } from '../../state-directory.ts'
import type { WebhookAction } from './config.ts'

const ATTEMPTS = 5
const TIMEOUT_MS = 10_000
const MAX_DEAD_LETTERS = 100

/** What delivering needs. */
export interface WebhookContext {
  readonly node: string
  readonly installation: string
  readonly key: SigningKey
  readonly deadLetters: string
  readonly now: () => number
  /** Of the first pause between two tries; each is twice the one before. */
  readonly backoffMs: number
  readonly signal: AbortSignal
}

/** @throws {AgentError} ACTION_FAILED – it is a dead letter now */
export async function deliver(
  { url, ca, id }: WebhookAction,
  denial: Denial,
  context: WebhookContext,
): Promise<void> {
  const { node, installation, key, now, signal } = context
  const payload = {
    ...{ iss: node, aud: url, iat: Math.floor(now() / 1000), jti: randomUUID() },
    ...{ event: 'unit-denied', action: id, installation, denial },
  }
  const body = signJws({ typ: 'bagcheck-event+jwt', kid: key.thumbprint }, payload, key)
  let status = 0
  for (let attempt = 0; attempt < ATTEMPTS && !signal.aborted; attempt += 1) {
    if (attempt > 0)
      await sleep(context.backoffMs * 2 ** (attempt - 1), undefined, { signal, ref: false }).catch(
        () => undefined, // stopping: it is a dead letter
      )
    status = await post(url, ca, body).catch(() => 0) // not reached: the next try
    if (status >= 200 && status < 300) return
    // What it will not take it will not take later either; a redirect is no invitation.
    if (status >= 300 && status < 500 && status !== 429 && status !== 408) break
  }
  keepDeadLetter(context.deadLetters, { at: now(), action: id, url, status, body })
  throw new AgentError(
    'ACTION_FAILED',
    `${id}: expected 2xx of ${url}, saw ${status === 0 ? 'no answer' : status}; kept in ${context.deadLetters}`,
  )
}

function post(url: string, ca: string | null, body: string): Promise<number> {
  const unix = url.startsWith('unix:') ? url.slice('unix:'.length) : undefined
  const headers = { 'content-type': 'application/jwt', 'content-length': Buffer.byteLength(body) }
  const options = { method: 'POST', headers, signal: AbortSignal.timeout(TIMEOUT_MS), agent: false }
  return new Promise((resolve, reject) => {
    const outgoing =
      unix === undefined
        ? httpsRequest(url, { ...options, ...(ca === null ? {} : { ca: readFileSync(ca) }) })
        : httpRequest({ ...options, socketPath: unix, path: '/' })
    outgoing.on('response', (response) => {
      resolve(response.statusCode ?? 0)
      response.destroy() // what it says besides is of no interest
    })
    outgoing.on('error', reject)
    outgoing.end(body)
  })
}

function keepDeadLetter(file: string, letter: unknown): void {
  const kept = existsSync(file) ? readFileSync(file, 'utf8').trimEnd().split('\n') : []
  const lines = [...kept.filter((line) => line !== ''), JSON.stringify(letter)]
  writeFile(file, `${lines.slice(-MAX_DEAD_LETTERS).join('\n')}\n`)
}
