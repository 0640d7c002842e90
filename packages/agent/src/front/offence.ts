// The first thing that a denial is about, in the agent's own words: what it stated, looked up by the code and
// the sentence of the broker's first reason. For people and for whoever is told of the denial; it decides nothing.
import type { Evidence, Problem, Reason } from '@bagcheck/api'
import type { ProcessFacts } from '../measure/messages.ts'

/** An object that is not as it should be. */
export interface Offence {
  /** A file, or the program of the process that is meant. */
  readonly path: string
  /** Of a mismatch in the store what the verification calls it, else the code of the reason. */
  readonly kind: string
  readonly expected: string
  readonly seen: string
}

const MAX_TEXT = 512

const EXPECTED_OF_FILES: Readonly<Record<string, string>> = {
  FILE_NOT_IN_CLOSURE: 'a file of the approved closure',
  FILE_NOT_STORE_FILE: 'the very file of the store',
  FILE_UNLINKED: 'a file that still has its name',
}

/** What `problem` is about first, in the facts that it is the answer to. */
export function offenceOf(problem: Problem, facts: Evidence['facts']): Offence {
  const reason: Reason = problem.reasons?.[0] ?? {
    code: problem.code,
    message: problem.error_description,
  }
  const { path, kind, expected, seen } =
    mismatchOf(reason, facts) ?? fileOf(reason, facts) ?? processOf(reason, facts)
  return { path: clip(path), kind: clip(kind), expected: clip(expected), seen: clip(seen) }
}

function mismatchOf({ code }: Reason, { roots }: Evidence['facts']): Offence | undefined {
  const mismatch = roots.find((root) => root.mismatch !== null)?.mismatch
  if (code !== 'CONTENT_MISMATCH' || mismatch === undefined || mismatch === null) return undefined
  const { path, file, kind, expected, seen } = mismatch
  return { path: file ?? path, kind, expected, seen }
}

function fileOf({ code, message }: Reason, { processes }: Evidence['facts']): Offence | undefined {
  const expected = EXPECTED_OF_FILES[code]
  if (expected === undefined) return undefined
  // The longest: one path may begin another.
  const named = processes
    .flatMap(({ executable, files }) => [executable, ...files])
    .filter(({ path }) => path !== '' && message.includes(path))
    .toSorted((a, b) => b.path.length - a.path.length)[0]
  return named && { path: named.path, kind: code, expected, seen: `sha256 ${named.sha256}` }
}

/** The process that is to blame where one can be told, else the one that was launched. */
function processOf({ code, message, nearest }: Reason, facts: Evidence['facts']): Offence {
  const { processes, roots, unit } = facts
  const blamed: ((process: ProcessFacts) => string | undefined) | undefined = {
    TEXT_MODIFIED: ({ modifiedTextBytes }: ProcessFacts) =>
      modifiedTextBytes > 0 ? `${modifiedTextBytes} changed bytes of code` : undefined,
    TRACED: ({ tracerPid }: ProcessFacts) =>
      tracerPid > 0 ? `process ${tracerPid} traces it` : undefined,
    NEW_PRIVILEGES_POSSIBLE: ({ noNewPrivs }: ProcessFacts) =>
      noNewPrivs ? undefined : 'no-new-privs is not set',
  }[code]
  const found = processes.find((process) => blamed?.(process) !== undefined)
  const path = found?.executable.path ?? unit.contract?.executable ?? processes[0]?.executable.path
  const unapproved = code === 'CLOSURE_NOT_APPROVED' ? roots[0]?.root : undefined
  return {
    path: path ?? '',
    kind: code,
    expected: nearest?.root ?? '',
    seen: (found && blamed?.(found)) ?? unapproved ?? message,
  }
}

const clip = (text: string): string => text.slice(0, MAX_TEXT)
