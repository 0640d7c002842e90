// The life of an authority that signs SVIDs. Each step is an entry in the log.
//
//   prepare ► prepared ─activate► active ─(another is activated)► old
//                  └──────────────┴─────────────taint────────────┴──► tainted ─revoke► revoked
//                  └──────────────┴────────(long expired) retire─┴──────┴─────────────► retired
//
//   in the bundle   prepared (so that verifiers know it before it signs), active, old, tainted
//   signs           active, and nothing else
//
// Revoking takes two steps, so that nobody pulls what live SVIDs rest on out of every bundle by one slip.

/** What can be done to an authority. */
export type AuthorityAction = 'prepare' | 'activate' | 'taint' | 'revoke' | 'retire'

/** Where an authority stands. */
export type AuthorityState = 'prepared' | 'active' | 'old' | 'tainted' | 'revoked' | 'retired'

const STEPS: Readonly<
  Record<AuthorityAction, { from: readonly (AuthorityState | undefined)[]; to: AuthorityState }>
> = {
  prepare: { from: [undefined], to: 'prepared' },
  activate: { from: ['prepared'], to: 'active' },
  taint: { from: ['prepared', 'active', 'old'], to: 'tainted' },
  revoke: { from: ['tainted'], to: 'revoked' },
  retire: { from: ['prepared', 'active', 'old', 'tainted'], to: 'retired' },
}

/** The state after a step, or undefined if there is no such step from here. */
export function stateAfter(
  action: AuthorityAction,
  state: AuthorityState | undefined,
): AuthorityState | undefined {
  const { from, to } = STEPS[action]
  return from.includes(state) ? to : undefined
}

/** True if the step was taken already: asking again is no error. */
export function isDone(action: AuthorityAction, state: AuthorityState | undefined): boolean {
  return action !== 'prepare' && STEPS[action].to === state
}

/** True while verifiers are to know it. */
export function isInBundle(state: AuthorityState): boolean {
  return state !== 'revoked' && state !== 'retired'
}
