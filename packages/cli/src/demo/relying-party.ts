// The demo's relying party: an API that knows nothing of Bagcheck. A stock OAuth client finds the keys by
// discovery and JWKS and checks signature, type, issuer, audience, expiry and the proof of possession
// (RFC 9068, RFC 9449). What it reads besides is one flat claim with the closure's digest.
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import * as oauth from 'oauth4webapi'

/** A relying party that listens; `url` is where. */
export interface RelyingParty {
  readonly url: string
  close(): Promise<void>
}

/** One call as the relying party saw it. */
export interface ApiCall {
  readonly status: number
  readonly subject?: string
  readonly closure?: string
  readonly error?: string
}

/** Starts the API on a free loopback port. Plain HTTP is for the demo: the library refuses it unless told. */
export async function startRelyingParty(options: {
  issuer: string
  audience: string
  onCall: (call: ApiCall) => void
}): Promise<RelyingParty> {
  const insecure = { [oauth.allowInsecureRequests]: true }
  const issuer = new URL(options.issuer)
  const server = await oauth.processDiscoveryResponse(
    issuer,
    await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure }),
  )

  const judge = async (request: IncomingMessage, base: string): Promise<ApiCall> => {
    const headers = new Headers()
    for (const name of ['authorization', 'dpop']) {
      const value = request.headers[name]
      if (typeof value === 'string') headers.set(name, value)
    }
    const seen = new Request(new URL(request.url ?? '/', base), {
      method: request.method ?? 'GET',
      headers,
    })
    try {
      const claims = await oauth.validateJwtAccessToken(server, seen, options.audience, {
        signingAlgorithms: ['ES256'],
        ...insecure,
      })
      const closure = claims['bagcheck_closure']
      return {
        status: 200,
        subject: claims.sub,
        closure: typeof closure === 'string' ? closure : '',
      }
    } catch (error) {
      return { status: 401, error: (error as Error).message }
    }
  }

  let base = ''
  const api = createServer((request, response) => {
    void judge(request, base).then((call) => {
      options.onCall(call)
      response.writeHead(call.status, { 'content-type': 'application/json' })
      response.end(JSON.stringify(call))
    })
  })
  await new Promise<void>((resolve, reject) => {
    api.once('error', reject)
    api.listen(0, '127.0.0.1', resolve)
  })
  base = `http://127.0.0.1:${(api.address() as AddressInfo).port}`
  return {
    url: base,
    close: () =>
      new Promise((resolve) => {
        api.close(() => resolve())
        api.closeAllConnections()
      }),
  }
}
