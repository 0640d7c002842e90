// JWT-SVIDs: obtained for one process instance and one audience, each after a measurement of its own and kept
// by nobody here; and verified for those who were shown one.
//
//   header    {alg, kid, typ?}   alg of the table; typ JWT or JOSE; nothing else          JWT-SVID §2
//   payload   sub: a SPIFFE ID; aud: holds the expected audience; exp: in the future      JWT-SVID §3
//   key       that `kid` in the bundle of the trust domain in `sub`, and in no other      JWT-SVID §5
import { constants, verify, type KeyObject } from 'node:crypto'
import { AgentError, quote } from '../../error.ts'
import type { JwtSvidAnswer } from '../broker-client.ts'
import { issue, type IssueContext, type IssueRequest } from '../issue.ts'
import { DeniedElsewhere, type Refusal } from '../problem.ts'
import type { BundleSet, JwtKey } from './bundles.ts'
import { parseSpiffeId } from './spiffe-id.ts'

/** Clocks differ; a token that is valid later than this is refused. */
const MAX_SKEW_SECONDS = 60
const MAX_TOKEN_BYTES = 8 * 1024

/**
 * Obtains a JWT-SVID for `audience`. One that is under way while its bag is denied elsewhere is not handed out:
 * it was earned before that.
 * @throws {BrokerProblem} a denial; {DeniedElsewhere}; {AgentError} everything that keeps facts from being stated
 * or sent
 */
export async function issueJwtSvid(
  request: Pick<IssueRequest, 'instance'> & { readonly audience: string },
  context: IssueContext,
): Promise<JwtSvidAnswer> {
  const asked = {
    ...request,
    ...{ ttlSeconds: null, profile: null, workloadKey: null, previousDecision: null },
  }
  const denied: Refusal[] = []
  const stop = context.outcomes.subscribe(({ refusal, concerns }) => {
    if (concerns(request.instance)) denied.push(refusal)
  })
  try {
    const svid = await issue(asked, context, (evidence) => context.broker.jwtSvid(evidence))
    if (denied[0] !== undefined) throw new DeniedElsewhere(denied[0])
    return svid
  } finally {
    stop()
  }
}

/** A JWT-SVID that was found good. */
export interface ValidJwtSvid {
  readonly spiffeId: string
  readonly claims: Readonly<Record<string, unknown>>
}

/** Algorithms of RFC 7518 §3.1 that a JWT-SVID may have, and the keys that go with them. */
const ALGORITHMS: Readonly<Record<string, { hash: string; curve?: string; pss?: true }>> = {
  ES256: { hash: 'sha256', curve: 'prime256v1' },
  ES384: { hash: 'sha384', curve: 'secp384r1' },
  ES512: { hash: 'sha512', curve: 'secp521r1' },
  RS256: { hash: 'sha256' },
  RS384: { hash: 'sha384' },
  RS512: { hash: 'sha512' },
  PS256: { hash: 'sha256', pss: true },
  PS384: { hash: 'sha384', pss: true },
  PS512: { hash: 'sha512', pss: true },
}
const MIN_RSA_BITS = 2048

/**
 * Verifies `token` as one for `audience`.
 * @throws {AgentError} REQUEST_INVALID
 */
export function validateJwtSvid(
  token: string,
  audience: string,
  { set, nowSeconds }: { set: BundleSet; nowSeconds: number },
): ValidJwtSvid {
  if (token.length > MAX_TOKEN_BYTES) throw invalid('the token is too long')
  const parts = token.split('.')
  const [header, payload, signature] = parts.map(decodePart)
  if (parts.length !== 3 || !header || !payload || !signature)
    throw invalid('expected a compact JWS')
  const { alg, kid, typ, ...others } = parseObject(header)
  const algorithm = typeof alg === 'string' && Object.hasOwn(ALGORITHMS, alg) ? alg : undefined
  if (algorithm === undefined) throw invalid(`unexpected alg ${quote(alg)}`)
  if (typ !== undefined && typ !== 'JWT' && typ !== 'JOSE')
    throw invalid(`unexpected typ ${quote(typ)}`)
  const [other] = Object.keys(others)
  if (other !== undefined) throw invalid(`unexpected header ${quote(other)}`)
  if (typeof kid !== 'string') throw invalid('expected a kid')
  const claims = parseObject(payload)
  const id = parseSpiffeId(claims['sub'])
  if (id === undefined || id.path === '') throw invalid('expected a SPIFFE ID as sub')
  const bundle = set.bundles.get(id.trustDomain)
  if (bundle === undefined) throw invalid(`no bundle of trust domain ${quote(id.trustDomain)}`)
  const key = bundle.jwt.get(kid)
  if (key === undefined) throw invalid(`no key ${quote(kid)} of ${quote(id.trustDomain)}`)
  const signed = Buffer.from(token.slice(0, token.lastIndexOf('.')))
  if (!isSigned(signed, signature, algorithm, key))
    throw invalid('the signature is not by the key that it names')
  const { aud, exp } = claims
  const audiences: unknown[] = Array.isArray(aud) ? aud : [aud]
  if (!audiences.includes(audience)) throw invalid(`expected audience ${quote(audience)}`)
  if (typeof exp !== 'number' || !(exp > nowSeconds)) throw invalid('expected exp in the future')
  for (const name of ['nbf', 'iat'] as const) {
    const at = claims[name]
    if (at !== undefined && !(typeof at === 'number' && at <= nowSeconds + MAX_SKEW_SECONDS))
      throw invalid(`expected ${name} in the past`)
  }
  return { spiffeId: id.id, claims }
}

function isSigned(signed: Buffer, signature: Buffer, name: string, { key, jwk }: JwtKey): boolean {
  const algorithm = ALGORITHMS[name]
  if (algorithm === undefined || (jwk['alg'] !== undefined && jwk['alg'] !== name)) return false
  const { hash, curve, pss } = algorithm
  if (curve === undefined) return isRsa(key) && verify(hash, signed, rsaKey(key, pss), signature)
  // Node takes any length for the numbers of an ECDSA signature; here it is the curve's.
  const bits = { prime256v1: 256, secp384r1: 384, secp521r1: 521 }[curve] ?? 0
  return (
    key.asymmetricKeyType === 'ec' &&
    key.asymmetricKeyDetails?.namedCurve === curve &&
    signature.length === 2 * Math.ceil(bits / 8) &&
    verify(hash, signed, { key, dsaEncoding: 'ieee-p1363' }, signature)
  )
}

function isRsa(key: KeyObject): boolean {
  const bits = key.asymmetricKeyDetails?.modulusLength ?? 0
  return key.asymmetricKeyType === 'rsa' && bits >= MIN_RSA_BITS
}

function rsaKey(key: KeyObject, pss: true | undefined): Parameters<typeof verify>[2] {
  if (pss === undefined) return key
  const padding = constants.RSA_PKCS1_PSS_PADDING
  return { key, padding, saltLength: constants.RSA_PSS_SALTLEN_DIGEST }
}

function decodePart(part: string): Buffer | undefined {
  const bytes = Buffer.from(part, 'base64url')
  return part !== '' && bytes.toString('base64url') === part ? bytes : undefined
}

function parseObject(bytes: Buffer): Record<string, unknown> {
  try {
    const value = JSON.parse(bytes.toString('utf8')) as unknown
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      return value as Record<string, unknown>
  } catch {
    // no JSON is no JSON object either
  }
  throw invalid('expected a JSON object')
}

function invalid(message: string): AgentError {
  return new AgentError('REQUEST_INVALID', `not a valid JWT-SVID: ${message}`)
}
