// Where a crash test can stop the broker outside the store, whose own points are in store/.

/** In the order in which a request passes them. */
export const ISSUE_CRASH_POINTS = ['before-log', 'before-mint', 'after-mint'] as const
export type IssueCrashPoint = (typeof ISSUE_CRASH_POINTS)[number]

/** In the order in which an authority passes them; see spiffe/authorities.ts. */
export const AUTHORITY_CRASH_POINTS = [
  'after-authority-key',
  'after-authority-prepare',
  'after-authority-activate',
] as const
export type AuthorityCrashPoint = (typeof AUTHORITY_CRASH_POINTS)[number]
