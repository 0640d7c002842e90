// Clients stop for good at InvalidArgument and Canceled, so nothing about a unit or the moment may be either.
import { expect, test } from 'vitest'
import { AGENT_ERROR_CODES, AgentError } from '../../../src/error.ts'
import { BrokerProblem } from '../../../src/front/broker-client.ts'
import { encodeMessage, STATUS, statusOf } from '../../../src/front/spiffe/status.ts'

test.each(AGENT_ERROR_CODES.filter((code) => code !== 'REQUEST_INVALID'))(
  '%s is denied or unavailable',
  (code) => {
    const { permissionDenied, unavailable } = STATUS
    expect([permissionDenied, unavailable]).toContain(statusOf(new AgentError(code, 'x')).code)
  },
)

test.each([
  [400, STATUS.permissionDenied],
  [401, STATUS.permissionDenied],
  [403, STATUS.permissionDenied],
  [404, STATUS.permissionDenied],
  [409, STATUS.unavailable],
  [429, STATUS.unavailable],
  [500, STATUS.unavailable],
  [503, STATUS.unavailable],
])('what the broker refuses with %i is %i', (status, code) => {
  const problem = { error: 'invalid_request', error_description: 'no', code: 'CODE' }
  expect(statusOf(new BrokerProblem(status, problem))).toEqual({ code, message: 'CODE: no' })
})

test('a mistake of ours tells nothing, and can be tried again', () => {
  expect(statusOf(new Error('secret'))).toEqual({
    code: STATUS.unavailable,
    message: 'INTERNAL: the agent failed',
  })
})

test('a message of any text is printable', () => {
  expect(encodeMessage('100% “ü”\n')).toBe('100%25 %E2%80%9C%C3%BC%E2%80%9D%0A')
  expect(encodeMessage('x'.repeat(5000)).length).toBeLessThan(1100)
})
