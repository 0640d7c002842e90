// `POST /token`: RFC 8693 in the one form that we speak. Each parameter exactly once and none that we do
// not know: a parameter that is silently ignored is a wish that the client believes granted.
import { ACCESS_TOKEN_TYPE, tokenRequestSchema, type TokenResponse } from '@bagcheck/api'
import type { z } from 'zod'
import type { Handler } from '../app.ts'
import { BrokerError, quote, type BrokerErrorCode } from '../error.ts'
import { issueToken, type IssueRequest } from '../issue.ts'
import { denialOf } from '../problems.ts'
import { json } from './answer.ts'

export const token: Handler = async ({ broker, body }) => {
  const start = performance.now()
  const issued = await issueToken(broker, parseExchange(body as string))
  if (issued.kind === 'denied') {
    const { status, body: problem } = denialOf(issued.denial)
    return json(problem, { status })
  }
  const { text, type, expiresInSeconds, jti, logIndex } = issued.minted
  const answer: TokenResponse = {
    access_token: text,
    issued_token_type: ACCESS_TOKEN_TYPE,
    token_type: type,
    expires_in: expiresInSeconds,
    decision: jti,
    log_index: logIndex,
  }
  broker.metrics.issueSeconds.observe((performance.now() - start) / 1000)
  return json(answer, { headers: { pragma: 'no-cache' } })
}

/** What is wrong with a parameter that is there, where OAuth has an error of its own for it. */
const CODES: Readonly<Record<string, BrokerErrorCode>> = {
  grant_type: 'REQUEST_GRANT_TYPE',
  subject_token_type: 'REQUEST_TOKEN_TYPE',
  requested_token_type: 'REQUEST_TOKEN_TYPE',
}

/**
 * Reads the form.
 * @throws {BrokerError} REQUEST_INVALID – a parameter is missing, repeated or unknown;
 * REQUEST_GRANT_TYPE, REQUEST_TOKEN_TYPE, REQUEST_TARGET
 */
export function parseExchange(form: string): IssueRequest {
  const pairs = [...new URLSearchParams(form)]
  const names = pairs.map(([name]) => name)
  // RFC 8693 §2.2.2: more targets than one are not refused as malformed but as targets.
  if (names.includes('resource') || names.filter((name) => name === 'audience').length > 1)
    throw new BrokerError('REQUEST_TARGET', 'expected exactly one audience and no resource')
  const repeated = names.find((name, index) => names.indexOf(name) !== index)
  if (repeated !== undefined)
    throw new BrokerError('REQUEST_INVALID', `expected parameter ${quote(repeated)} exactly once`)
  const parameters = Object.fromEntries(pairs)
  const parsed = tokenRequestSchema.safeParse(parameters)
  if (!parsed.success) throw refusedFor(parsed.error.issues, parameters)
  return { audience: parsed.data.audience, evidence: parsed.data.subject_token }
}

function refusedFor(
  issues: readonly z.core.$ZodIssue[],
  parameters: Readonly<Record<string, string>>,
): BrokerError {
  const unknown = issues.flatMap((issue) => (issue.code === 'unrecognized_keys' ? issue.keys : []))
  if (unknown.length > 0)
    return new BrokerError('REQUEST_INVALID', `expected no parameter ${quote(unknown[0])}`)
  const [issue] = issues
  const name = String(issue?.path[0])
  if (!Object.hasOwn(parameters, name))
    return new BrokerError('REQUEST_INVALID', `expected parameter ${quote(name)} exactly once`)
  return new BrokerError(CODES[name] ?? 'REQUEST_INVALID', `${name}: ${issue?.message}`)
}
