import { PolicyError, type PolicyErrorCode } from '../src/index.ts'

/** The code that `action` throws, undefined if it returns; other errors pass through. */
export function codeOf(action: () => unknown): PolicyErrorCode | undefined {
  try {
    action()
  } catch (error) {
    if (error instanceof PolicyError) return error.code
    throw error
  }
  return undefined
}
