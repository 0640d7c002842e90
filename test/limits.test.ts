// One limit is often written in two packages that may not import each other. Each pair is compared here.
import { BODY_LIMITS, ROUTES, TEXT_LIMITS } from '@bagcheck/api'
import { FILE_LIST_MAX_BYTES, MANIFEST_MAX_BYTES } from '@bagcheck/nix'
import { INSTALLATION_NAME, MAX_POLICY_BYTES } from '@bagcheck/policy'
import { describe, expect, test } from 'vitest'
import {
  ATTESTATION_BYTES,
  POLICY_BYTES,
  ROOT_CHAIN_BYTES,
} from '../packages/agent/src/front/broker-client.ts'
import { parseConfig } from '../packages/agent/src/config.ts'
import { MAX_BODY_BYTES_IN_FLIGHT } from '../packages/broker/src/request-body.ts'

describe('limits', () => {
  test('of the agent are those of the API', () => {
    expect(POLICY_BYTES).toBe(BODY_LIMITS.policy)
    expect(ROOT_CHAIN_BYTES).toBe(BODY_LIMITS.rootChain)
    expect(ATTESTATION_BYTES).toBe(BODY_LIMITS.attestation)
  })

  test('of the wire are no wider than the parsers behind it', () => {
    expect(TEXT_LIMITS.policy).toBe(MAX_POLICY_BYTES)
    expect(TEXT_LIMITS.manifest).toBeLessThanOrEqual(MANIFEST_MAX_BYTES)
    expect(TEXT_LIMITS.files).toBeLessThanOrEqual(FILE_LIST_MAX_BYTES)
  })

  test('let several of the largest requests be in flight at once', () => {
    const largest = Math.max(...ROUTES.map(({ request }) => request?.maxBytes ?? 0))
    expect(3 * largest).toBeLessThanOrEqual(MAX_BODY_BYTES_IN_FLIGHT)
  })

  test.each([
    ['a line of a manifest', `/nix/store/${'0'.repeat(32)}-x sha256-${'A'.repeat(43)}= 1\n`],
    ['a line of a file list', `/nix/store/${'0'.repeat(32)}-x/"q" ${'0'.repeat(64)} 1 r\n`],
    [
      'a root of a policy',
      `{"closure":"${'0'.repeat(64)}","root":"/nix/store/${'0'.repeat(32)}-x"}`,
    ],
  ])('of bodies have room for %s as JSON writes it', (_, text) => {
    expect(JSON.stringify(text).length - 2).toBeLessThanOrEqual(text.length * 1.25)
  })
})

test.each([
  'demo',
  'eu-1.prod',
  '0',
  'x'.repeat(64),
  'x'.repeat(65),
  'Demo',
  'a_b',
  '-a',
  '.a',
  '',
])('the agent takes %j for the name of an installation if policy does', (installation) => {
  const config = { installation, broker: 'http://127.0.0.1:1', trustRootPin: 'a'.repeat(64) }
  const parse = (): unknown => parseConfig(JSON.stringify(config), '/')
  if (INSTALLATION_NAME.test(installation)) expect(parse()).toMatchObject({ installation })
  else expect(parse).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }))
})
