// An enrolled node as a broker sees it: it asks for a challenge, signs evidence and brings it for a token.
import { generateKeyPairSync, hash, sign } from 'node:crypto'
import { EVIDENCE_TYP, JWT_TYPE, TOKEN_EXCHANGE_GRANT, type Evidence } from '@bagcheck/api'
import { sha256Hex } from '@bagcheck/nix'
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
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const { x = '', y = '' } = privateKey.export({ format: 'jwk' })
  const thumbprint = hash('sha256', `{"crv":"P-256","kty":"EC","x":"${x}","y":"${y}"}`, 'base64url')
  const signJws = (header: object, payload: object): string => {
    const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url')
    const signed = `${part({ alg: 'ES256', ...header })}.${part(payload)}`
    const key = { key: privateKey, dsaEncoding: 'ieee-p1363' } as const
    return `${signed}.${sign('sha256', Buffer.from(signed), key).toString('base64url')}`
  }
  const seconds = (): number => Math.floor(Date.now() / 1000)

  const joinToken = installation.joinToken()
  const proof = signJws(
    { typ: 'bagcheck-enrol+jwt', jwk: { kty: 'EC', crv: 'P-256', x, y } },
    { aud: issuer, iat: seconds(), joinToken: sha256Hex(joinToken) },
  )
  const enrolment = broker.send('POST', '/v1/nodes', json({ joinToken, proof }))
  const { node } = await expectJson<{ node: string }>(enrolment, 201)
  let counter = 0

  const evidence = (service: Service, nonce: string): string => {
    const now = seconds()
    const statement: Evidence = {
      schema: 'bagcheck.evidence/v1',
      iss: node,
      aud: issuer,
      installation: INSTALLATION,
      trustRoot: installation.pin as Evidence['trustRoot'],
      iat: now,
      nonce,
      counter: (counter += 1),
      profile: null,
      workloadKey: thumbprint,
      instance: { pid: 4711, startTicks: 1_000_000, device: '8:1', inode: '1', startCode: 4096 },
      previousDecision: null,
      facts: factsOf(service, now) as Evidence['facts'],
      host: { bootId: 'bench', kernel: '6.1', currentSystem: null, bootedSystem: null },
      agent: { version: '0.1.0', executable: sha256Hex('agent') },
    }
    return signJws({ typ: EVIDENCE_TYP, kid: thumbprint }, statement)
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
