// The demo's service. It holds no secret: its own code asks the agent, which measures the bag that this
// very process runs, and uses the token at the relying party. Told by its environment where both are.
// Prints one JSON line per event, for the story to follow. Runs under --jitless, so: no fetch.
import { createHash, generateKeyPairSync, randomUUID, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'
import http from 'node:http'

const { AGENT_SOCKET, AUDIENCE, API_URL } = process.env
const prices = JSON.parse(readFileSync(new URL('../share/prices.json', import.meta.url), 'utf8'))
const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const { kty, crv, x, y } = publicKey.export({ format: 'jwk' })

const tell = (event, facts) => console.log(JSON.stringify({ event, ...facts }))
const base64url = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')

/** A proof that this process holds the key that its token is bound to (RFC 9449). */
function prove(method, url, more) {
  const header = { typ: 'dpop+jwt', alg: 'ES256', jwk: { kty, crv, x, y } }
  const payload = { jti: randomUUID(), htm: method, htu: url, iat: now(), ...more }
  const input = `${base64url(header)}.${base64url(payload)}`
  const signature = sign('sha256', Buffer.from(input), {
    key: privateKey,
    dsaEncoding: 'ieee-p1363',
  })
  return `${input}.${signature.toString('base64url')}`
}

function now() {
  return Math.floor(Date.now() / 1000)
}

function request(options, body) {
  return new Promise((resolve, reject) => {
    const call = http.request(options, (response) => {
      if (response.headers['content-type']?.startsWith('text/event-stream'))
        return resolve(response)
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk) => (text += chunk))
      response.on('end', () => resolve({ status: response.statusCode, body: JSON.parse(text) }))
    })
    call.on('error', reject)
    call.end(body)
  })
}

const agent = (method, path, body) =>
  request(
    { socketPath: AGENT_SOCKET, method, path, headers: { 'content-type': 'application/json' } },
    body && JSON.stringify(body),
  )

/** Calls the relying party with the token that we hold. */
async function callApi(token) {
  const url = new URL('/orders', API_URL)
  const ath = createHash('sha256').update(token.accessToken).digest('base64url')
  const headers = {
    authorization: `DPoP ${token.accessToken}`,
    dpop: prove('GET', url.href, { ath }),
  }
  const { status, body } = await request({
    host: url.hostname,
    port: url.port,
    path: url.pathname,
    method: 'GET',
    headers,
  })
  tell('api', { status, ...body })
}

/** Tokens are as good as secrets: told are the facts about one, never the token. */
async function use(token) {
  const { decision, logIndex, expiresAt, renewed } = token
  tell('token', {
    decision,
    logIndex,
    expiresAt,
    renewed,
    rounding: prices.rounding,
    at: Date.now(),
  })
  await callApi(token)
}

const denied = ({ code, reasons, decision }) =>
  tell('denied', { code, reasons, decision, at: Date.now() })

const { nonce } = (await agent('GET', '/v1/nonce')).body
const dpopProof = prove('POST', 'http://agent/v1/token', { nonce })
const answer = await agent('POST', '/v1/token', { audience: AUDIENCE, dpopProof })
if (answer.status !== 200) {
  denied(answer.body)
  process.exit(1)
}
await use(answer.body)

// From here on the agent renews by itself, and says so; or says why not.
const events = await agent('GET', `/v1/watch?audience=${encodeURIComponent(AUDIENCE)}`)
let first = answer.body.decision
let buffer = ''
for await (const chunk of events) {
  buffer += chunk
  for (let end; (end = buffer.indexOf('\n\n')) >= 0;) {
    const lines = buffer.slice(0, end).split('\n')
    buffer = buffer.slice(end + 2)
    const kind = lines.find((line) => line.startsWith('event: '))?.slice(7)
    const data = lines.find((line) => line.startsWith('data: '))?.slice(6)
    if (kind === undefined || data === undefined) continue // a keep-alive
    const value = JSON.parse(data)
    if (kind === 'denied') denied(value)
    else if (value.decision === first) first = undefined // the stream opens with the token we hold
    else await use(value)
  }
}
tell('closed', {})
