import { describe, expect, test } from 'vitest'
import { formatRegistrations, narHashDigest, parseRegistrations } from '@bagcheck/nix'
import type { PathInfo } from '@bagcheck/nix'
import { glibc, hello } from './facts.ts'

const parse = (text: string): PathInfo[] => parseRegistrations(Buffer.from(text, 'latin1'))
const recorded = ({ path, narHash, narSize, references, deriver }: PathInfo): PathInfo => ({
  path,
  narHash,
  narSize,
  references,
  ...(deriver && { deriver }),
})
const hex = ({ narHash }: PathInfo): string => Buffer.from(narHashDigest(narHash)).toString('hex')
const text = [
  ...[glibc.path, hex(glibc), '4096', '', '0'],
  ...[hello.path, hex(hello), '226552', hello.deriver, '2', glibc.path, hello.path, ''],
].join('\n')

describe('registrations', () => {
  test('are read as Nix prints them, and print as they were', () => {
    expect(parse(text)).toEqual([recorded(glibc), recorded(hello)])
    expect(formatRegistrations(parse(text))).toBe(text)
  })

  test('none are none', () => {
    expect(parse('')).toEqual([])
    expect(formatRegistrations([])).toBe('')
  })

  test('with prefixed hashes, as closureInfo writes them, are read', () => {
    expect(parse(text.replaceAll(hex(glibc), `sha256:${hex(glibc)}`))).toEqual(parse(text))
  })

  test.each([
    ['a path twice', text + text, 13],
    ['a reference twice', text.replace(`\n${glibc.path}\n`, `\n${hello.path}\n`), 12],
    ['a path elsewhere', text.replace('/nix/store/', '/gnu/store/'), 1],
    ['a hash of another algorithm', text.replace(hex(glibc), 'ab'.repeat(20)), 2],
    ['a size of 0', text.replace('4096', '0'), 3],
    ['a size with a sign', text.replace('4096', '+1'), 3],
    ['a deriver that is no path', text.replace('\n\n', '\nx\n'), 4],
    ['a negative count', text.replace('\n0\n', '\n-1\n'), 5],
    ['a count beyond the text', text.replace('\n2\n', '\n9007199254740991\n'), 13],
    ['an empty line between paths', text.replace('\n0\n', '\n0\n\n'), 6],
  ])('with %s are refused at the line', (_, value, line) => {
    expect(() => parse(value)).toThrow(
      expect.objectContaining({ code: 'REGISTRATION_LINE', detail: { line } }),
    )
  })

  test('CRLF is refused', () => {
    expect(() => parse(text.replaceAll('\n', '\r\n'))).toThrow(
      expect.objectContaining({ code: 'REGISTRATION_LINE' }),
    )
  })
})
