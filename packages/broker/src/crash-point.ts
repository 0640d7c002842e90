// Where a crash test can stop the broker outside the store, whose own points are in store/.

/** In the order in which a request passes them. */
export const ISSUE_CRASH_POINTS = ['before-log', 'before-mint', 'after-mint'] as const
export type IssueCrashPoint = (typeof ISSUE_CRASH_POINTS)[number]
