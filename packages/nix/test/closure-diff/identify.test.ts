import { describe, expect, test } from 'vitest'
import {
  derivationPath,
  formatDerivation,
  identifyByDerivation,
  NixError,
  packageOfOutput,
  parseNarHash,
} from '@bagcheck/nix'
import type { Derivation, PathInfo, StorePath } from '@bagcheck/nix'
import { at } from './closures.ts'

const out = at('a-thing')

function derivation(name: string, attributes: Record<string, string>): Derivation {
  const env = Object.entries({ ...attributes, name, out }).sort(([a], [b]) => (a < b ? -1 : 1))
  return {
    name,
    outputs: new Map([['out', { kind: 'input-addressed', path: out }]]),
    inputDerivations: new Map(),
    inputSources: [],
    platform: 'x86_64-linux',
    builder: '/bin/sh',
    args: [],
    env: new Map(env),
  }
}

describe('the package of an output', () => {
  test.each<[string, string, Record<string, string>, string, string]>([
    ['a name with its version', 'hello-2.12', { pname: 'hello', version: '2.12' }, 'hello', '2.12'],
    [
      'a library of one of two Pythons',
      'python3.11-requests-2.31',
      { pname: 'requests', version: '2.31' },
      'python3.11-requests',
      '2.31',
    ],
    ['a version that a name alone would miss', 'foo-r7', { version: 'r7' }, 'foo', 'r7'],
    [
      'a version that is not in the name',
      'foo-v1.2',
      { pname: 'foo', version: '1.2' },
      'foo',
      '1.2',
    ],
    ['a version and no pname', 'foo', { version: '3' }, 'foo', '3'],
    ['an empty version', 'foo-1.0', { version: '' }, 'foo', '1.0'],
    ['no version', 'foo-1.0', {}, 'foo', '1.0'],
    ['nothing but a version', '-1.0', {}, '-1.0', ''],
    ['a name that is its version', '-2', { version: '2' }, '-2', '2'],
    ['structured attributes', 'foo-r7', { __json: '{"version":"r7"}' }, 'foo', 'r7'],
    ['structured attributes without one', 'foo-1', { __json: '{"version":[]}' }, 'foo', '1'],
    ['structured attributes that are none', 'foo-1', { __json: '["version"' }, 'foo', '1'],
    ['a structured version that is a number', 'foo-7', { __json: '{"version":7}' }, 'foo', '7'],
    ['UTF-8', 'foo', { version: '\u00c3\u00a9' }, 'foo', 'é'],
  ])('is known by %s', (_, name, attributes, pname, version) => {
    const found = packageOfOutput(derivation(name, attributes), out)
    expect(found).toEqual({ pname, version, output: 'out' })
  })

  test('is unknown for a path that is no output', () => {
    expect(packageOfOutput(derivation('foo-1', {}), at('b-foo-1'))).toBeUndefined()
  })
})

describe('identification by derivation', () => {
  const drv = derivation('foo-r7', { version: 'r7' })
  const path = derivationPath(drv)
  const text = Buffer.from(formatDerivation(drv))
  const read = (files: Record<string, Uint8Array>) => async (wanted: StorePath) => {
    const file = files[wanted]
    if (file === undefined) throw new NixError('DRV_READ', 'not there')
    return file
  }
  const narHash = parseNarHash(`sha256:${'0'.repeat(64)}`)
  const info = (path: StorePath, deriver: StorePath): PathInfo => ({
    path,
    deriver,
    narHash,
    narSize: 1,
    references: [],
  })

  test('takes a deriver that is there and lists the path', async () => {
    const identify = await identifyByDerivation([info(out, path)], read({ [path]: text }))
    expect(identify(out)).toEqual({ pname: 'foo', version: 'r7', output: 'out' })
    expect(identify(at('b-other'))).toBeUndefined()
  })

  test.each<[string, PathInfo, Record<string, Uint8Array>]>([
    ['is gone', info(out, path), {}],
    ['does not list the path', info(at('b-other'), path), { [path]: text }],
    ['is not the text of its path', info(out, at('c-foo-r7.drv')), { [at('c-foo-r7.drv')]: text }],
    ['is no derivation', info(out, path), { [path]: Buffer.from('Derive(') }],
    ['is not named as one', info(out, at('c-foo')), { [at('c-foo')]: text }],
  ])('passes over a deriver that %s', async (_, one, files) => {
    expect((await identifyByDerivation([one], read(files)))(one.path)).toBeUndefined()
  })

  test('ends when nobody waits any more', async () => {
    const reason = new Error('ended')
    const ended = AbortSignal.abort(reason)
    await expect(identifyByDerivation([info(out, path)], read({}), ended)).rejects.toBe(reason)
  })
})
