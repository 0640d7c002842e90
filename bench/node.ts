// An enrolled node as a broker sees it: it asks for a challenge, signs evidence and brings it for a token.
import { EVIDENCE_TYP, JWT_TYPE, TOKEN_EXCHANGE_GRANT } from '@bagcheck/api'
import { sha256Hex } from '@bagcheck/nix'
import { evidenceOf, nodeKey, signJws } from '../packages/testkit/src/index.ts'
import type { Service } from './closures.ts'
import { factsOf } from './facts.ts'
import { expectJson, json, type HttpClient } from './http.ts'
import { AUDIENCE, INSTALLATION, type Installation } from './installation.ts'

/** A node with a key of its own. */
export interface BenchNode {
  /** From challenge to token, for one service; resolves to the decision's index in the log. */
  issue(service: Service, challenge: HttpClient, token?: HttpClient): Promise<number>
}

/** Enrols a new node. */
export async function enrolNode(
  installation: Installation,
  broker: HttpClient,
  issuer: string,
): Promise<BenchNode> {
  const { key, jwk, thumbprint } = nodeKey()
  const seconds = (): number => Math.floor(Date.now() / 1000)

  const joinToken = installation.joinToken()
  const proof = signJws(
    { typ: 'bagcheck-enrol+jwt', jwk },
    { aud: issuer, iat: seconds(), joinToken: sha256Hex(joinToken) },
    key,
  )
  const enrolment = broker.send('POST', '/v1/nodes', json({ joinToken, proof }))
  const { node } = await expectJson<{ node: string }>(enrolment, 201)
  let counter = 0

  const evidence = (service: Service, nonce: string): string => {
    const now = seconds()
    const request = {
      node,
      issuer,
      installation: INSTALLATION,
      trustRoot: installation.pin,
      nonce,
      counter: (counter += 1),
      nowSeconds: now,
      workloadKey: thumbprint,
    }
    const statement = evidenceOf(request, factsOf(service, now))
    return signJws({ typ: EVIDENCE_TYP, kid: thumbprint }, statement, key)
  }

  return {
    issue: async (service, challenge, token = challenge) => {
      const asked = challenge.send('POST', '/v1/challenge', json({ node, purpose: 'issue' }))
      const { nonce } = await expectJson<{ nonce: string }>(asked, 200)
      const form = new URLSearchParams({
        grant_type: TOKEN_EXCHANGE_GRANT,
        subject_token_type: JWT_TYPE,
        audience: AUDIENCE,
        subject_token: evidence(service, nonce),
      })
      const type = 'application/x-www-form-urlencoded'
      const answer = token.send('POST', '/token', { type, text: form.toString() })
      return (await expectJson<{ log_index: number }>(answer, 200)).log_index
    },
  }
}
