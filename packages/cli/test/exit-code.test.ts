import { ApiError, API_ERROR_CODES } from '@bagcheck/api'
import { AttestError } from '@bagcheck/attest'
import { LogError } from '@bagcheck/log'
import { NixError, NIX_ERROR_CODES } from '@bagcheck/nix'
import { PolicyError } from '@bagcheck/policy'
import { describe, expect, test } from 'vitest'
import { CliError, EXIT } from '../src/error.ts'
import { exitCodeOf } from '../src/exit-code.ts'

const refusedWith = (status: number): ApiError =>
  new ApiError('BROKER_REFUSED', 'no', {
    status,
    problem: { error: 'x', error_description: 'x', code: 'X' },
  })

describe('the exit code says whether we were refused or could not find out', () => {
  test.each([400, 401, 403, 404, 409, 413])('a broker that answers %i refuses', (status) => {
    expect(exitCodeOf(refusedWith(status))).toBe(EXIT.refused)
  })

  test.each([429, 500, 502, 503, 504])('a broker that answers %i could not', (status) => {
    expect(exitCodeOf(refusedWith(status))).toBe(EXIT.failed)
  })

  test.each(API_ERROR_CODES.filter((code) => code !== 'BROKER_REFUSED'))(
    '%s is no answer of the broker',
    (code) => {
      expect(exitCodeOf(new ApiError(code, 'x'))).toBe(EXIT.failed)
    },
  )

  test('a store, daemon or database that cannot be read is no mismatch', () => {
    const failed = NIX_ERROR_CODES.filter(
      (code) => exitCodeOf(new NixError(code, 'x')) === EXIT.failed,
    )
    const unreadable =
      /^(CACHE_(RESPONSE|TIMEOUT|UNREACHABLE)|DAEMON_|DATABASE_|LEDGER_|STORE_(CHANGED|MISSING|READ)$|DRV_READ$)/
    expect(failed).toEqual(NIX_ERROR_CODES.filter((code) => unreadable.test(code)))
  })

  test.each([
    [new NixError('CONTENT_MISMATCH', 'x'), EXIT.refused],
    [new LogError('LOG_PROOF', 'x'), EXIT.refused],
    [new AttestError('SIGNATURE_INVALID', 'x'), EXIT.refused],
    [new PolicyError('POLICY_SIGNATURES', 'x'), EXIT.refused],
    [new CliError('USAGE', 'x'), EXIT.usage],
    [new CliError('NOT_ROOT', 'x'), EXIT.failed],
    [new CliError('NOT_FOUND', 'x', { exit: EXIT.refused }), EXIT.refused],
    [new TypeError('a mistake of ours'), EXIT.failed],
    [Object.assign(new Error('x'), { name: 'NixError', code: 'HASH' }), EXIT.failed],
  ])('%s gives %i', (error, code) => {
    expect(exitCodeOf(error)).toBe(code)
  })
})
