// Prints the one line that every run ends with, whatever the terminal or the CI can show.
import type { TestModule, TestRunEndReason } from 'vitest/node'

/**
 * Vitest reporter: `N passed, N failed, N skipped`. A file that could not load counts as failed, and so
 * does a suite whose hooks failed: its tests were not run, which is not the same as skipped on purpose.
 */
export default class TotalsReporter {
  onTestRunEnd(
    modules: readonly TestModule[],
    errors: readonly unknown[],
    _reason: TestRunEndReason,
  ): void {
    let passed = 0
    let failed = errors.length
    let skipped = 0
    for (const module of modules) {
      if (module.errors().length > 0) failed += 1
      for (const suite of module.children.allSuites()) if (suite.errors().length > 0) failed += 1
      for (const test of module.children.allTests()) {
        const { state } = test.result()
        if (state === 'passed') passed += 1
        else if (state === 'failed') failed += 1
        else skipped += 1
      }
    }
    // After vitest's own summary, which is written in the same tick.
    process.on('exit', () => console.log(`${passed} passed, ${failed} failed, ${skipped} skipped`))
  }
}
