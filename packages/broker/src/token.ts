// Minting tokens. Each function here, and in svid.ts, makes one type of token from a logged decision about
// that very type, and takes nothing that a request could have chosen: role, audience, key, lifetime and id
// are in the decision, which is durable.
import { TOKEN_CLAIM } from '@bagcheck/attest'
import type { AllowedDecision, LoggedDecision } from './decision.ts'
import type { TokenKey } from './keys.ts'
import { BACKDATE_SECONDS } from './spiffe/certificate.ts'

/** A minted token; `text` is a secret. */
export interface MintedToken {
  readonly text: string
  readonly type: 'DPoP' | 'Bearer'
  readonly expiresInSeconds: number
  readonly jti: string
  readonly logIndex: number
}

/**
 * Mints the one access token that a logged decision allows: RFC 9068; `cnf.jkt` (RFC 9449 §6.1) where the
 * profile binds by DPoP.
 * @throws {TypeError} a second use, or a decision about another type
 */
export function mintToken(logged: LoggedDecision, issuer: string, key: TokenKey): MintedToken {
  const decision = logged.use('access_token')
  const claims = {
    ...registeredClaims(decision, issuer),
    aud: decision.audience,
    client_id: decision.sub,
    ...(decision.binding === 'dpop' && { cnf: { jkt: decision.keyThumbprint } }),
    ...evidenceClaims(decision),
  }
  return {
    text: signJwt('at+jwt', claims, key),
    type: decision.binding === 'dpop' ? 'DPoP' : 'Bearer',
    expiresInSeconds: decision.expiresAt - decision.issuedAt,
    jti: decision.id,
    logIndex: decision.logIndex,
  }
}

/** RFC 7519 §4.1, but `aud`, whose form differs; integers only, because some verifiers read no others. */
export function registeredClaims(
  decision: AllowedDecision,
  issuer: string,
): Readonly<Record<'iss' | 'sub' | 'iat' | 'nbf' | 'exp' | 'jti', string | number>> {
  return {
    iss: issuer,
    sub: decision.sub,
    iat: decision.issuedAt,
    nbf: decision.issuedAt - BACKDATE_SECONDS,
    exp: decision.expiresAt,
    jti: decision.id,
  }
}

/** What the token rests on, digests only; flat duplicates for verifiers that compare strings alone. */
export function evidenceClaims(decision: AllowedDecision): Readonly<Record<string, unknown>> {
  return {
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
}

/** A compact JWS over claims: ES256, and `typ`, `alg` and `kid` alone in the header. */
export function signJwt(typ: string, claims: object, key: Pick<TokenKey, 'kid' | 'sign'>): string {
  const signed = `${encode({ typ, alg: 'ES256', kid: key.kid })}.${encode(claims)}`
  return `${signed}.${key.sign(Buffer.from(signed, 'latin1')).toString('base64url')}`
}

function encode(value: unknown): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}
