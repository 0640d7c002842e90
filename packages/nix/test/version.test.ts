import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compareVersions, parseDrvName } from '@bagcheck/nix'

describe('parseDrvName', () => {
  // The examples of the Nix manual and of its own tests, and corners; the system test asks real Nix.
  test.each([
    ['apache-httpd-2.0.48', 'apache-httpd', '2.0.48'],
    ['nix-0.12pre12876', 'nix', '0.12pre12876'],
    ['python3.11-requests-2.31.0', 'python3.11-requests', '2.31.0'],
    ['foo-unstable-2023-01-01', 'foo-unstable', '2023-01-01'],
    ['foo-0-unstable-2024-01-01', 'foo', '0-unstable-2024-01-01'],
    ['foo-v1.2', 'foo-v1.2', ''],
    ['foo-', 'foo-', ''],
    ['foo--1', 'foo', '-1'],
    ['foo-.1', 'foo', '.1'],
    ['foo-_', 'foo', '_'],
    ['-1', '', '1'],
    ['1', '1', ''],
    ['', '', ''],
  ])('takes %j apart', (fullName, name, version) => {
    expect(parseDrvName(fullName)).toEqual({ name, version })
  })
})

describe('compareVersions', () => {
  test.each<[string, string, -1 | 0 | 1]>([
    ['1.0', '2.3', -1],
    ['2.1', '2.3', -1],
    ['2.3', '2.3', 0],
    ['2.5', '2.3', 1],
    ['3.1', '2.3', 1],
    ['2.3.1', '2.3', 1],
    ['2.3.1', '2.3a', 1],
    ['2.3pre1', '2.3', -1],
    ['2.3pre3', '2.3pre12', -1],
    ['2.3a', '2.3c', -1],
    ['2.3pre1', '2.3c', -1],
    ['2.3pre1', '2.3q', -1],
    ['01.0', '1', 1],
    ['1..0', '1-0', 0],
    ['', '', 0],
    ['', '1', -1],
    ['', 'a', -1],
    ['', '-.', 0],
    // Beyond a C int digits are text, and text is older than a number.
    ['2147483648', '5', -1],
    ['2147483647', '5', 1],
    ['20260131120000', '20250131120000', 1],
  ])('%j against %j is %i', (a, b, expected) => {
    expect(compareVersions(a, b)).toBe(expected)
    expect(compareVersions(b, a)).toBe(expected === 0 ? 0 : -expected)
  })

  test('says of any two versions the same in both orders', () => {
    const version = fc.string({ unit: fc.constantFrom('0', '1', '9', '.', '-', 'a', 'pre', 'é') })
    fc.assert(
      fc.property(version, version, (a, b) => {
        const forth = compareVersions(a, b)
        expect(compareVersions(b, a)).toBe(forth === 0 ? 0 : -forth)
        expect(compareVersions(a, a)).toBe(0)
      }),
    )
  })
})
