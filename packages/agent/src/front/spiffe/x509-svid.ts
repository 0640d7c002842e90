// One X.509-SVID: a key of its own for this process instance and this issue, made here, stated in evidence by
// its thumbprint, certified by the broker, handed over and wiped. It never lies on disk, and no second
// process gets it. What the broker answers is looked at before it is handed on: the key is ours, the name is
// the one that is told, and the chain ends at an authority of our own trust domain that is in force.
import { generateKeyPairSync, createPublicKey, X509Certificate } from 'node:crypto'
import { AgentError } from '../../error.ts'
import type { X509SvidAnswer } from '../broker-client.ts'
import { issue, type Credential, type IssueContext, type IssueRequest } from '../issue.ts'
import { thumbprint } from '../jws.ts'
import type { PublicJwk } from '@bagcheck/api'
import type { Bundles, TrustBundle } from './bundles.ts'
import { parseSpiffeId } from './spiffe-id.ts'

const MIN_LIFE_MS = 1000

/** An SVID with its private key, until that is wiped. */
export interface X509Svid extends Credential {
  readonly spiffeId: string
  /** DER, leaf first, one after the other. */
  readonly certificates: Buffer
  /** PKCS#8 DER; zeros once it was handed over. */
  readonly privateKey: Buffer
  readonly hint: string | undefined
}

/**
 * Obtains an X.509-SVID for a new key.
 * @throws {BrokerProblem} a denial; {AgentError} everything that keeps facts from being stated or sent
 */
export async function issueX509Svid(
  request: Omit<IssueRequest, 'audience' | 'workloadKey'>,
  context: IssueContext,
  bundles: Pick<Bundles, 'get' | 'refresh'>,
): Promise<X509Svid> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', {
    namedCurve: 'P-256',
    publicKeyEncoding: { type: 'spki', format: 'der' },
    privateKeyEncoding: { type: 'pkcs8', format: 'der' },
  })
  try {
    const jwk = createPublicKey({ key: publicKey, type: 'spki', format: 'der' }).export({
      format: 'jwk',
    }) as PublicJwk
    const asked = { ...request, audience: null, workloadKey: thumbprint(jwk) }
    return await issue(asked, context, async (evidence) => {
      const answer = await context.broker.x509Svid(evidence, publicKey)
      const leaf = checkLeaf(answer, publicKey)
      await checkChain(answer, bundles)
      const expiresAt = Math.min(answer.expiresAt, Math.floor(Date.parse(leaf.validTo) / 1000))
      // By our clock, which renewals go by: one that is past would be renewed without a pause.
      if (!(expiresAt * 1000 > context.now() + MIN_LIFE_MS))
        throw unexpected('a certificate that has expired')
      return {
        spiffeId: answer.spiffeId,
        certificates: Buffer.concat(answer.certificates),
        privateKey,
        hint: answer.hint,
        expiresAt,
        decision: answer.decision,
        logIndex: answer.logIndex,
      }
    })
  } catch (error) {
    privateKey.fill(0)
    throw error
  }
}

/** X509-SVID §2, §4: one URI SAN, which is the SPIFFE ID; no authority. And our key. */
function checkLeaf({ spiffeId, certificates }: X509SvidAnswer, publicKey: Buffer): X509Certificate {
  const leaf = parseCertificate(certificates[0])
  const isOurs = leaf.publicKey.export({ type: 'spki', format: 'der' }).equals(publicKey)
  if (!isOurs) throw unexpected('a certificate of another key')
  if (leaf.ca) throw unexpected('a certificate of an authority')
  if (leaf.subjectAltName !== `URI:${spiffeId}`) throw unexpected('a certificate of another name')
  return leaf
}

/** X509-SVID §5.1: a path to an authority of the leaf's own trust domain, and of no other. */
async function checkChain(
  { spiffeId, certificates }: X509SvidAnswer,
  bundles: Pick<Bundles, 'get' | 'refresh'>,
): Promise<void> {
  const chain = certificates.map(parseCertificate)
  const known = await bundles.get()
  const id = parseSpiffeId(spiffeId)
  if (id?.trustDomain !== known.own || id.path === '')
    throw unexpected('a name that is none of our trust domain')
  if (endsAt(chain, known.bundles.get(known.own))) return
  // The authority may be newer than the last bundle that we saw.
  const refreshed = await bundles.refresh()
  if (!endsAt(chain, refreshed.bundles.get(known.own)))
    throw unexpected('a certificate of no authority in the trust bundle')
}

function endsAt(chain: readonly X509Certificate[], bundle: TrustBundle | undefined): boolean {
  const linked = chain
    .slice(1)
    .every((issuer, index) => issuer.ca && isIssued(chain[index] as X509Certificate, issuer))
  const last = chain.at(-1)
  return (
    linked &&
    last !== undefined &&
    bundle !== undefined &&
    bundle.x509.some((authority) => isIssued(last, authority))
  )
}

function isIssued(certificate: X509Certificate, issuer: X509Certificate): boolean {
  return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey)
}

function parseCertificate(der: Buffer | undefined): X509Certificate {
  try {
    return new X509Certificate(der ?? Buffer.alloc(0))
  } catch (cause) {
    throw new AgentError('BROKER_RESPONSE', 'expected a certificate', { cause })
  }
}

function unexpected(what: string): AgentError {
  return new AgentError('BROKER_RESPONSE', `expected an X.509-SVID, saw ${what}`)
}
