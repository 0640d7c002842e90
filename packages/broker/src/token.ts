// Minting. The only function that makes a token takes a logged decision and nothing that a request
// could have chosen: type, role, audience, key, lifetime and id are in the decision, which is durable.
import { TOKEN_CLAIM } from '@bagcheck/attest'
import type { AllowedDecision, LoggedDecision } from './decision.ts'
import type { TokenKey } from './keys.ts'

/** Verifiers whose clock is behind ours by so much still accept the token. */
const BACKDATE_SECONDS = 10

/** A minted token; `text` is a secret. */
export interface MintedToken {
  readonly text: string
  readonly type: 'DPoP' | 'Bearer'
  readonly expiresInSeconds: number
  readonly jti: string
  readonly logIndex: number
}

/** Mints the one token that a logged decision allows; a second use throws TypeError. */
export function mintToken(logged: LoggedDecision, issuer: string, key: TokenKey): MintedToken {
  const decision = logged.use()
  switch (decision.type) {
    case 'access_token':
      return mintAccessToken(decision, issuer, key)
    default:
      throw new TypeError(`a decision about a ${decision.type satisfies never}`)
  }
}

/** RFC 9068; `cnf.jkt` (RFC 9449 §6.1) where the profile binds by DPoP. */
function mintAccessToken(decision: AllowedDecision, issuer: string, key: TokenKey): MintedToken {
  const header = { typ: 'at+jwt', alg: 'ES256', kid: key.kid }
  const claims = {
    iss: issuer,
    sub: decision.sub,
    aud: decision.audience,
    iat: decision.issuedAt,
    nbf: decision.issuedAt - BACKDATE_SECONDS,
    exp: decision.expiresAt,
    jti: decision.id,
    client_id: decision.sub,
    ...(decision.binding === 'dpop' && { cnf: { jkt: decision.keyThumbprint } }),
    [TOKEN_CLAIM]: {
      root: decision.root,
      closure: decision.closureDigest,
      policy: { v: decision.policyVersion, sha256: decision.policySha256 },
      dec: decision.logIndex,
      ev: `sha256:${decision.evidenceSha256}`,
      tier: decision.tier,
      strength: decision.strength,
      ...(decision.successorOf !== null && { succ: decision.successorOf }),
      ...(decision.jit && { jit: true }),
    },
    bagcheck_closure: decision.closureDigest,
    bagcheck_role: decision.role,
    bagcheck_tier: String(decision.tier),
  }
  const signed = `${encode(header)}.${encode(claims)}`
  const signature = key.sign(Buffer.from(signed, 'latin1')).toString('base64url')
  return {
    text: `${signed}.${signature}`,
    type: decision.binding === 'dpop' ? 'DPoP' : 'Bearer',
    expiresInSeconds: decision.expiresAt - decision.issuedAt,
    jti: decision.id,
    logIndex: decision.logIndex,
  }
}

function encode(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}
