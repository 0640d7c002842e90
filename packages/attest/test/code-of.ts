import { AttestError, type AttestErrorCode } from '../src/index.ts'

/** Returns the code that `action` throws, or undefined if it returns; other errors pass through. */
export function codeOf(action: () => unknown): AttestErrorCode | undefined {
  try {
    action()
  } catch (error) {
    if (error instanceof AttestError) return error.code
    throw error
  }
  return undefined
}
