// When authorities are prepared, activated and retired, by SPIRE's rule: the next is prepared when half of
// the active one's life is left, 30 days at most, and activated when a sixth is left, 7 days at most. Between
// the two, a third of its life, verifiers get to know it.
import type { AuthorityKind } from '@bagcheck/api'
import type { Authority } from './authority-book.ts'

const DAY = 86_400
/** Less life than this is left to no SVID. */
export const LEAST_LIFE_SECONDS = 5
/** Verifiers' leeway: so long after its end nothing that an authority signed passes anywhere. */
export const LEEWAY_SECONDS = 600

/** What is to be done next for one kind. */
export type Due = 'prepare' | 'activate' | null

/** What is due for our authorities of one kind and one trust domain. */
export function whatIsDue(ours: readonly Authority[], nowSeconds: number): Due {
  const active = signerAmong(ours, nowSeconds)
  const prepared = preparedAmong(ours, nowSeconds)
  const next: Due = prepared === undefined ? 'prepare' : 'activate'
  if (active === undefined) return next
  const life = active.expiresAt - active.preparedAt
  const left = active.expiresAt - nowSeconds
  if (left <= Math.min(life / 6, 7 * DAY)) return next
  if (left <= Math.min(life / 2, 30 * DAY) && prepared === undefined) return 'prepare'
  return null
}

/** The authority that signs, if there is one. */
export function signerAmong(ours: readonly Authority[], nowSeconds: number): Authority | undefined {
  return ours.findLast((one) => one.state === 'active' && isAlive(one, nowSeconds))
}

/** The authority that signs next. */
export function preparedAmong(
  ours: readonly Authority[],
  nowSeconds: number,
): Authority | undefined {
  return ours.find((one) => one.state === 'prepared' && isAlive(one, nowSeconds))
}

/** True once no verifier accepts what it signed, so that the bundle need not name it. */
export function isPast({ expiresAt }: Authority, nowSeconds: number): boolean {
  return nowSeconds > expiresAt + LEEWAY_SECONDS
}

/** Seconds after which a bundle is to be read again: five times between preparing and activating. */
export function refreshHint(lifeSeconds: number): number {
  return Math.max(1, Math.min(300, Math.floor(lifeSeconds / 15)))
}

/** Authorities of one kind and trust domain. */
export function ofKind(
  all: readonly Authority[],
  kind: AuthorityKind,
  trustDomain: string,
): Authority[] {
  return all.filter((one) => one.kind === kind && one.trustDomain === trustDomain)
}

function isAlive({ expiresAt }: Authority, nowSeconds: number): boolean {
  return expiresAt - nowSeconds >= LEAST_LIFE_SECONDS
}
