import { expect, test } from 'vitest'
import { redactArguments, redactText } from '../../src/front/redact.ts'

const R = '[redacted]'
const DIGEST = 'a1'.repeat(32)

test.each<[string, string[], string[]]>([
  ['a value after its option', ['--password', 'hunter2'], ['--password', R]],
  [
    'a value in its option',
    ['--api-key=hunter2', 'DB_PASSWORD=x y'],
    [`--api-key=${R}`, `DB_PASSWORD=${R}`],
  ],
  ['a user in a URL', ['postgres://me:pw@db/x'], [`postgres://${R}@db/x`]],
  ['a JWT', ['x', `eyJhbGciOiJFUzI1NiJ9.eyJzdWIi.c2ln`], ['x', R]],
  ['what is long and random', ['ghp_16C7e42F292c6912E7710c838347Ae178B4a'], [R]],
  ['a private key', ['-----BEGIN PRIVATE KEY-----\nMIG\n-----END PRIVATE KEY-----'], [R]],
])('hides %s', (_what, args, expected) => {
  expect(redactArguments(args)).toEqual(expected)
})

test.each([
  ['--jitless', '/nix/store/sgs1nvyvsjl78ppr01qvh6chdmbkgc2p-orders-1.0/lib/service.mjs'],
  ['--port=8080', '--name', 'orders'],
  ['--token-file', '--verbose'],
])('shows what explains something: %s', (...args) => {
  expect(redactArguments(args)).toEqual(args)
})

test('shows digests and decisions in a message', () => {
  const text = `closure ${DIGEST} at /nix/store/sgs1nvyvsjl78ppr01qvh6chdmbkgc2p-x, decision 01a20d4a-14ad-79ee-891c-929323d966c2`
  expect(redactText(text)).toBe(text)
})
