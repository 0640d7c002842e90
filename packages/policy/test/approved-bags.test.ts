// What may be put in force when nothing was measured: no more than what a decision would let pass.
import { describe, expect, test } from 'vitest'
import { approvedForHosts, approvedForService } from '../src/index.ts'
import { HOTFIX, NOW, ORDERS, policySource, verified, withRole } from './installation.ts'

const UNIT = 'orders.service'
const PAST = '2026-11-24T12:00:00Z'
/** A policy whose unit is a service of systemd. */
const service = (text: string, ...edits: readonly (readonly [string, string])[]) => {
  const unit = `unit: { launcher: systemd, name: ${UNIT}, cgroup: /system.slice/${UNIT} }`
  let edited = text.replaceAll('unit: { launcher: bagcheck-exec, name: orders }', unit)
  for (const [from, to] of edits) {
    expect(edited).toContain(from)
    edited = edited.replace(from, to)
  }
  return verified(edited)
}
const roots = (policy: ReturnType<typeof verified>): string[] =>
  approvedForService(policy, UNIT, NOW).map(({ root }) => root)
const edge = (expires: string): string =>
  `      - { from: ${ORDERS.digest}, to: ${HOTFIX.digest}, expires: ${expires} }`

describe('a service may run', () => {
  test('what its role approves, each with its digest, and nothing under another name or launcher', () => {
    const policy = service(policySource())
    expect(approvedForService(policy, UNIT, NOW)).toEqual([
      { root: ORDERS.root, closure: ORDERS.digest },
    ])
    expect(approvedForService(policy, 'other.service', NOW)).toEqual([])
    expect(approvedForService(verified(), 'orders', NOW)).toEqual([])
  })

  test.each<[string, readonly (readonly [string, string])[]]>([
    ['revoked', [['state: active', 'state: revoked']]],
    ['expired', [['state: active', `state: active, notAfter: ${PAST}`]]],
  ])('nothing that is %s', (_what, edits) => {
    expect(roots(service(policySource(), ...edits))).toEqual([])
  })

  test('both ends of an edge while it lasts, then the new one', () => {
    const text = (expires: string): string =>
      withRole([HOTFIX], '    successors:', edge(expires), '')
    expect(roots(service(text('2026-12-01T00:00:00Z')))).toEqual([ORDERS.root, HOTFIX.root])
    expect(roots(service(text(PAST)))).toEqual([HOTFIX.root])
  })

  test('of two roles that name it only what both approve', () => {
    const text = withRole([HOTFIX])
    const second = text
      .slice(text.indexOf('  orders:'))
      .replace('  orders:', '  more:')
      .replace(/.*- \{ root: .*-orders-1\.0, .*\n/, '')
    expect(roots(service(text))).toHaveLength(2)
    expect(roots(service(`${text}\n${second}`))).toEqual([HOTFIX.root])
  })

  test('nothing by a policy that is not in force', () => {
    const policy = service(policySource())
    const later = new Date('2026-12-24T00:00:00Z')
    for (const ask of [
      () => approvedForService(policy, UNIT, later),
      () => approvedForHosts(policy, 'demo', later),
    ])
      expect(ask).toThrow(expect.objectContaining({ code: 'POLICY_EXPIRED' }))
  })
})

test('hosts may run the systems of their class that are active and in time', () => {
  const system = (more: string): string =>
    `hosts:\n  web: { signers: [ci], systems: [{ root: ${ORDERS.root}, closure: ${ORDERS.digest}${more} }] }\nroles:`
  const of = (more: string, nodeClass = 'web'): unknown =>
    approvedForHosts(verified(policySource(['roles:', system(more)])), nodeClass, NOW)
  expect(of('')).toEqual([{ root: ORDERS.root, closure: ORDERS.digest }])
  expect(of('', 'db')).toEqual([])
  expect(of(', state: revoked')).toEqual([])
  expect(of(`, notAfter: ${PAST}`)).toEqual([])
})
