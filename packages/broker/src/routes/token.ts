// `POST /token`: RFC 8693 in the one form that we speak. Each parameter exactly once and none that we do
// not know: a parameter that is silently ignored is a wish that the client believes granted.
import type { TokenResponse } from '@bagcheck/api'
import type { Handler } from '../app.ts'
import { BrokerError, quote } from '../error.ts'
import { issue, type IssueRequest } from '../issue.ts'
import { denialOf } from '../problems.ts'
import { json } from './answer.ts'

const GRANT = 'urn:ietf:params:oauth:grant-type:token-exchange'
const JWT_TYPE = 'urn:ietf:params:oauth:token-type:jwt'
const ACCESS_TOKEN_TYPE = 'urn:ietf:params:oauth:token-type:access_token'

const KNOWN = [
  'grant_type',
  'subject_token',
  'subject_token_type',
  'audience',
  'requested_token_type',
]

export const token: Handler = async ({ broker, body }) => {
  const start = performance.now()
  const issued = await issue(broker, parseExchange(body as string))
  if (issued.kind === 'denied') {
    const { status, body: problem } = denialOf(issued.denial)
    return json(problem, { status })
  }
  const { text, type, expiresInSeconds, jti, logIndex } = issued.token
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

/**
 * Reads the form.
 * @throws {BrokerError} REQUEST_INVALID – a parameter is missing, repeated or unknown;
 * REQUEST_GRANT_TYPE, REQUEST_TOKEN_TYPE, REQUEST_TARGET
 */
export function parseExchange(form: string): IssueRequest {
  const parameters = new URLSearchParams(form)
  const names = [...parameters.keys()]
  // RFC 8693 §2.2.2: more targets than one are not refused as malformed but as targets.
  if (names.includes('resource') || names.filter((name) => name === 'audience').length > 1)
    throw new BrokerError('REQUEST_TARGET', 'expected exactly one audience and no resource')
  const unknown = names.find((name) => !KNOWN.includes(name))
  if (unknown !== undefined)
    throw new BrokerError('REQUEST_INVALID', `expected no parameter ${quote(unknown)}`)
  const value = (name: string): string => {
    const values = parameters.getAll(name)
    const [first] = values
    if (values.length !== 1 || first === undefined || first === '')
      throw new BrokerError('REQUEST_INVALID', `expected parameter ${quote(name)} exactly once`)
    return first
  }
  if (value('grant_type') !== GRANT)
    throw new BrokerError('REQUEST_GRANT_TYPE', `expected grant_type ${quote(GRANT)}`)
  if (value('subject_token_type') !== JWT_TYPE)
    throw new BrokerError('REQUEST_TOKEN_TYPE', `expected subject_token_type ${quote(JWT_TYPE)}`)
  if (parameters.has('requested_token_type') && value('requested_token_type') !== ACCESS_TOKEN_TYPE)
    throw new BrokerError(
      'REQUEST_TOKEN_TYPE',
      `expected requested_token_type ${quote(ACCESS_TOKEN_TYPE)}`,
    )
  return { audience: value('audience'), evidence: value('subject_token') }
}
