import { expect, test } from 'vitest'
import { parseSpiffeId } from '../../../src/front/spiffe/spiffe-id.ts'

test.each([
  ['spiffe://td', 'td', ''],
  ['spiffe://a.b-c_d.1/role/Orders_1.x-y', 'a.b-c_d.1', '/role/Orders_1.x-y'],
])('%s is a SPIFFE ID', (id, trustDomain, path) => {
  expect(parseSpiffeId(id)).toEqual({ id, trustDomain, path })
})

test.each([
  '',
  'td/a',
  'spiffe:/td/a',
  'spiffe://',
  'spiffe:///a',
  'SPIFFE://td/a',
  'spiffe://TD/a',
  'spiffe://td/',
  'spiffe://td/a/',
  'spiffe://td//a',
  'spiffe://td/.',
  'spiffe://td/a/../b',
  'spiffe://td/a%2fb',
  'spiffe://td/a?b',
  'spiffe://td/a#b',
  'spiffe://td:80/a',
  'spiffe://user@td/a',
  'spiffe://t\u00e4/a',
  'spiffe://td/a b',
  'spiffe://td/a\n',
  ' spiffe://td/a',
  `spiffe://${'t'.repeat(256)}/a`,
  `spiffe://td/${'a'.repeat(2048)}`,
  7,
  null,
])('%j is none', (id) => {
  expect(parseSpiffeId(id)).toBeUndefined()
})
