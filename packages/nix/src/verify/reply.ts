// What a worker thread is asked about one store path, and what it answers: values, because a thrown error
// loses its code on the way between threads.
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

/** Does what is asked; coded errors become values. */
export function replyTo(request: Request): Reply<PathScan | Settlement | PathSurvey> {
  try {
    if ('scan' in request) return { found: scanPath(request) }
    if ('settle' in request) return { found: settlePath(request) }
    return { found: surveyPath(request.survey, request.owner) }
  } catch (error) {
    if (!(error instanceof NixError)) throw error
    return { code: error.code, message: error.message, detail: error.detail }
  }
}
