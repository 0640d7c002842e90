// Names and versions, against the evaluator of real Nix.
import { nixAvailable, nixString, runNix } from '@bagcheck/testkit'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compareVersions, parseDrvName } from '@bagcheck/nix'

const piece = fc.oneof(
  fc.constantFrom('.', '-', 'pre', 'a', 'b', 'rc', '_', '+', 'é', 'Z'),
  fc.constantFrom('0', '1', '01', '9', '10', '2147483647', '2147483648', '99999999999999999999'),
)
const version = fc.array(piece, { maxLength: 6 }).map((pieces) => pieces.join(''))

/** Evaluates `expression`, of which JSON text comes out. */
function evaluate(expression: string): unknown {
  return JSON.parse(runNix('nix-instantiate', ['--eval', '--strict', '--json', '-E', expression]))
}

describe.runIf(nixAvailable())('real Nix', () => {
  test('orders 2,000 pairs of versions as compareVersions does', () => {
    const pairs = fc.sample(fc.tuple(version, version), 2000)
    const list = pairs.map(([a, b]) => `[ ${nixString(a)} ${nixString(b)} ]`).join(' ')
    const answers = evaluate(
      `map (p: builtins.compareVersions (builtins.elemAt p 0) (builtins.elemAt p 1)) [ ${list} ]`,
    )
    const ours = pairs.map(([a, b]) => [a, b, compareVersions(a, b)])
    expect(ours).toEqual(pairs.map(([a, b], n) => [a, b, (answers as number[])[n]]))
  })

  test('takes 2,000 names apart as parseDrvName does', () => {
    const names = fc.sample(fc.array(fc.oneof(piece, fc.constant('-')), { maxLength: 8 }), 2000)
    const list = names.map((pieces) => nixString(pieces.join(''))).join(' ')
    const answers = evaluate(`map builtins.parseDrvName [ ${list} ]`)
    expect(names.map((pieces) => parseDrvName(pieces.join('')))).toEqual(answers)
  })
})
