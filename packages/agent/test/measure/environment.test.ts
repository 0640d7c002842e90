import { describe, expect, test } from 'vitest'
import {
  MAX_HINTS,
  MAX_SEARCHED_PATHS,
  parseEnvironmentHints,
  parseSearchPaths,
} from '../../src/measure/environment.ts'

const environ = (...names: string[]): string => names.map((name) => `${name}=1\0`).join('')

describe('parseEnvironmentHints', () => {
  test('tells names, each once, and never a value', () => {
    expect(parseEnvironmentHints('HOME=/\0NODE_OPTIONS=--x\0NODE_OPTIONS=--y\0NO')).toEqual([
      'NODE_OPTIONS',
    ])
  })

  test.each(['PHPRC', 'ERL_AFLAGS', 'ERL_OTP27_FLAGS', 'R_PROFILE_USER', 'BASH_FUNC_ls%%'])(
    'sees %s, which makes an interpreter run more than its arguments say',
    (name) => expect(parseEnvironmentHints(environ('HOME', name))).toEqual([name]),
  )

  test('a crowd of harmless names does not hide the one that counts', () => {
    const crowd = Array.from({ length: MAX_HINTS }, (_, i) => `LD_${'A'.repeat(i + 1)}`)
    expect(parseEnvironmentHints(environ(...crowd))).toHaveLength(MAX_HINTS)
    expect(() => parseEnvironmentHints(environ(...crowd, 'NODE_OPTIONS'))).toThrow(
      expect.objectContaining({ code: 'MEASUREMENT_LIMIT' }),
    )
  })
})

describe('parseSearchPaths', () => {
  const inStore = (name: string): string => `/nix/store/${'a'.repeat(32)}-${name}`
  const [lib, more] = [inStore('lib'), inStore('more')]

  test.each<[what: string, text: string, storePaths: string[], elsewhere: number]>([
    ['of a wrapper that Nix made', `PYTHONPATH=${lib}/lib:${more}:${lib}/x`, [lib, more], 0],
    ['of patterns', `LUA_PATH=${lib}/?.lua;;${more}/?/init.lua`, [lib, more], 0],
    ['with a slash at the end', `NODE_PATH=${lib}/`, [lib], 0],
    ['to elsewhere', 'PERL5LIB=/tmp:/var/lib/x', [], 2],
    ['to the working directory', `RUBYLIB=${lib}:`, [lib], 1],
    ['to a relative directory', 'CLASSPATH=lib', [], 1],
    ['out of the store again', `NODE_PATH=${lib}/../../../tmp`, [], 1],
    ['to the whole store', 'PYTHONPATH=/nix/store', [], 1],
    ['to what only looks like the store', 'PYTHONPATH=/nix/store2/x:/tmp/nix/store', [], 2],
  ])('%s', (_what, text, storePaths, elsewhere) => {
    const variable = text.split('=', 1)[0]
    expect(parseSearchPaths(`HOME=/root\0${text}\0`)).toEqual([{ variable, storePaths, elsewhere }])
  })

  test('tells a variable that is there twice twice, and none that is empty or no search path', () => {
    const text = ['PERL5LIB=', `PERL5LIB=${lib}`, 'PERL5LIB=/tmp', 'PATH=/tmp', 'XPERL5LIB=/tmp']
    expect(parseSearchPaths(text.join('\0'))).toEqual([
      { variable: 'PERL5LIB', storePaths: [lib], elsewhere: 0 },
      { variable: 'PERL5LIB', storePaths: [], elsewhere: 1 },
    ])
  })

  test('a crowd is an error, and hides nothing', () => {
    const crowd = Array.from({ length: MAX_SEARCHED_PATHS }, (_, i) => inStore(`p${i}`))
    const [found] = parseSearchPaths(`PERL5LIB=${crowd.join(':')}`)
    expect(found?.storePaths).toHaveLength(MAX_SEARCHED_PATHS)
    const limit = expect.objectContaining({ code: 'MEASUREMENT_LIMIT' })
    expect(() => parseSearchPaths(`PERL5LIB=${[...crowd, lib].join(':')}`)).toThrow(limit)
    expect(parseSearchPaths('PERL5LIB=/tmp\0'.repeat(32))).toHaveLength(32)
    expect(() => parseSearchPaths('PERL5LIB=/tmp\0'.repeat(33))).toThrow(limit)
  })
})
