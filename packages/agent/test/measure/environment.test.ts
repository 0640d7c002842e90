import { describe, expect, test } from 'vitest'
import { MAX_HINTS, parseEnvironmentHints } from '../../src/measure/environment.ts'

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
