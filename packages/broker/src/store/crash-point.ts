/**
 * Where a crash test can stop the process for good, in the order in which a commit passes them:
 * nothing written; rows in the open transaction; head moved in the open transaction; committed without a
 * checkpoint; checkpoint stored, nobody answered.
 */
export const CRASH_POINTS = [
  'before-transaction',
  'after-insert',
  'before-commit',
  'after-commit',
  'after-checkpoint',
] as const

/** One of {@link CRASH_POINTS}. */
export type CrashPoint = (typeof CRASH_POINTS)[number]

/** Ends this process by SIGKILL when `wanted` is `here`: no handler runs, no buffer is flushed. */
export function crashAt(here: CrashPoint, wanted: CrashPoint | undefined): void {
  if (here === wanted) process.kill(process.pid, 'SIGKILL')
}
