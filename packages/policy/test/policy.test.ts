import { AttestError, canonicalize } from '@bagcheck/attest'
import { sha256Hex } from '@bagcheck/nix'
import { describe, expect, test } from 'vitest'
import { MAX_POLICY_BYTES, PolicyError, parsePolicy } from '../src/index.ts'
import { isInterpreter } from '../src/interpreters.ts'
import { compilePattern } from '../src/policy.ts'
import { compile, inventPath, policySource } from './installation.ts'

const { json } = compile(policySource())
const refusal = (text: string | Uint8Array): string | undefined => {
  try {
    parsePolicy(text)
  } catch (error) {
    if (error instanceof PolicyError || error instanceof AttestError) return error.code
    throw error
  }
  return undefined
}

describe('a compiled policy', () => {
  test('has one text: other spacing, order or spelling is refused', () => {
    expect(refusal(json)).toBeUndefined()
    expect(refusal(`${json}\n`)).toBe('CANONICAL_JSON')
    expect(refusal(json.replace('"version":1', '"version":1.0'))).toBe('CANONICAL_JSON')
    expect(refusal(json.replace('"uid":990', '"uid":990,"uid":0'))).toBe('CANONICAL_JSON')
    expect(refusal(json.replace('"uid":990', '"uid": 990'))).toBe('CANONICAL_JSON')
  })

  test('leaves nothing out: defaults are for authors', () => {
    for (const member of ['"notBefore":null,', '"capabilities":[],', '"successors":[],'])
      expect(refusal(json.replace(member, ''))).toBe('POLICY_FORMAT')
  })

  test('has no members that nobody knows', () => {
    const policy = JSON.parse(json) as Record<string, unknown>
    expect(refusal(canonicalize({ ...policy, waive: true }))).toBe('POLICY_FORMAT')
  })

  test('is checked for sense like its source', () => {
    expect(refusal(json.replace('"signers":["ci"]', '"signers":["cj"]'))).toBe('POLICY_FORMAT')
    expect(refusal(json.replace('"{script}"', '"x"'))).toBe('POLICY_FORMAT')
  })

  test('that is cut off anywhere is refused with a code', () => {
    for (let length = 0; length < json.length; length += 1)
      expect(refusal(json.slice(0, length))).toMatch(/^(JSON_SYNTAX|CANONICAL_JSON)$/)
  })

  test('with a bit flipped is refused with a code, or is another policy', () => {
    const bytes = Buffer.from(json)
    for (let at = 0; at < bytes.length; at += 3) {
      const flipped = Uint8Array.from(bytes)
      flipped[at] = (flipped[at] ?? 0) ^ 1
      const code = refusal(flipped)
      if (code === undefined) expect(sha256Hex(flipped)).not.toBe(sha256Hex(json))
    }
  })

  test('beyond the limits is refused before it is read', () => {
    expect(refusal(' '.repeat(MAX_POLICY_BYTES + 1))).toBe('JSON_LIMIT')
    expect(refusal('['.repeat(1000))).toMatch(/^JSON_/)
  })

  test('cannot reach into objects by the names of its roles', () => {
    for (const name of ['__proto__', 'constructor']) {
      const other = JSON.stringify(name)
      const code = refusal(json.replace('"orders":{', `${other}:{`))
      if (name === '__proto__') expect(code).toBe('POLICY_FORMAT')
    }
    expect(({} as Record<string, unknown>)['uid']).toBeUndefined()
  })
})

describe('a pattern', () => {
  const path = (name: string, file: string): string => `${inventPath(name)}/${file}`
  test.each([
    ['demo-node-*/bin/node', path('demo-node-24.1', 'bin/node'), true],
    ['demo-node-*/bin/node', path('demo-node-', 'bin/node'), true],
    ['demo-node-*/bin/node', path('x-demo-node-24.1', 'bin/node'), false],
    ['demo-node-*/bin/node', path('demo-node-24.1', 'bin/node2'), false],
    ['demo-node-*/bin/node', path('demo-node-24.1', 'x/bin/node'), false],
    ['demo-node-*/bin/node', '/tmp/demo-node-24.1/bin/node', false],
    ['a.c/bin/x', path('abc', 'bin/x'), false],
    ['*/bin/x', path('anything', 'bin/x'), true],
    ['*/bin/x', path('anything', 'lib/bin/x'), false],
    ['a*b*c/x', path('aXbYc', 'x'), true],
  ])('%s matches %s: %s', (pattern, file, expected) => {
    expect(compilePattern(pattern).test(file)).toBe(expected)
  })
})

describe('an interpreter is known by name', () => {
  test.each(
    'node node24 perl perl5.36.0 python3.11 .python3.11-wrapped .perl-wrapped ruby-3.1 bash sh busybox php-fpm luajit-2.1.0-beta3 ld-linux-x86-64.so.2 ld-musl-x86_64.so.1 qemu-x86_64 java'.split(
      ' ',
    ),
  )('%s', (name) => {
    expect(isInterpreter(`/nix/store/x/bin/${name}`)).toBe(true)
  })
  test.each('orders nodectl shepherd perlmutter javelin postgres'.split(' '))('not %s', (name) => {
    expect(isInterpreter(`/nix/store/x/bin/${name}`)).toBe(false)
  })
})
