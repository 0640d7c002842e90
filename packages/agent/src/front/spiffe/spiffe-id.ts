// SPIFFE IDs: `spiffe://TRUST-DOMAIN/segment/segment`. One parser, which refuses and never normalises: two
// spellings of one identity have been somebody else's CVE. Scheme and trust domain may be written in
// capitals according to the standard; nobody of ours does, so here they may not.
import { AgentError, quote } from '../../error.ts'

const TRUST_DOMAIN = /^[a-z0-9._-]{1,255}$/
const SEGMENT = /^[a-zA-Z0-9._-]+$/
const MAX_ID_BYTES = 2048

/** A SPIFFE ID in its parts. */
export interface SpiffeId {
  readonly id: string
  readonly trustDomain: string
  /** Empty for a trust domain itself, else it starts with `/`. */
  readonly path: string
}

/** The parts of `id`; undefined if it is no SPIFFE ID. */
export function parseSpiffeId(id: unknown): SpiffeId | undefined {
  const match =
    typeof id === 'string' && id.length <= MAX_ID_BYTES
      ? /^spiffe:\/\/([^/]+)(\/.*)?$/.exec(id)
      : null
  const [whole, trustDomain = '', path = ''] = match ?? []
  const segments = path.split('/').slice(1)
  const isPath = segments.every((part) => SEGMENT.test(part) && part !== '.' && part !== '..')
  if (whole === undefined || !TRUST_DOMAIN.test(trustDomain) || !isPath) return undefined
  return { id: whole, trustDomain, path }
}

/** A trust domain by its name, or by its SPIFFE ID. @throws {AgentError} BROKER_RESPONSE */
export function parseTrustDomain(name: string): string {
  const bare = name.startsWith('spiffe://') ? name.slice('spiffe://'.length) : name
  if (TRUST_DOMAIN.test(bare)) return bare
  throw new AgentError('BROKER_RESPONSE', `expected a trust domain, saw ${quote(name)}`)
}
