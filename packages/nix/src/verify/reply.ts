// What is asked about one store path, of a worker thread or of one's own, and what is answered: values, because a
// thrown error loses its code on the way between threads.
import { NixError } from '../error.ts'
import type { NixErrorCode } from '../error.ts'
import type { StorePath } from '../store-path.ts'
import { scanPath } from './scan.ts'
import type { PathScan, ScanRequest } from './scan.ts'
import { settlePath } from './settle.ts'
import type { Settlement, SettleRequest } from './settle.ts'
import { surveyPath } from './survey.ts'
import type { PathSurvey } from './survey.ts'

/** What to do with one path. */
export type Request =
  | ScanRequest
  | SettleRequest
  | { readonly survey: StorePath; readonly owner: number }

/** What came of it. */
export type Reply<T> =
  | { readonly found: T }
  | { readonly code: NixErrorCode; readonly message: string; readonly detail: NixError['detail'] }

/** Does what is asked, in pieces, and yields between them; coded errors become values. */
export function* replyTo(
  request: Request,
): Generator<void, Reply<PathScan | Settlement | PathSurvey>> {
  try {
    if ('scan' in request) return { found: yield* scanPath(request) }
    if ('settle' in request) return { found: yield* settlePath(request) }
    return { found: yield* surveyPath(request.survey, request.owner) }
  } catch (error) {
    if (!(error instanceof NixError)) throw error
    return { code: error.code, message: error.message, detail: error.detail }
  }
}

/** All of it at once. */
export function finish<T>(work: Generator<void, T>): T {
  for (;;) {
    const step = work.next()
    if (step.done === true) return step.value
  }
}
