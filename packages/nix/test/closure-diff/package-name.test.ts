import { describe, expect, test } from 'vitest'
import { guessPackageName, parseStorePathBase } from '@bagcheck/nix'

const guess = (name: string): unknown => {
  const { pname, version, output } = guessPackageName(
    parseStorePathBase(`${'0'.repeat(32)}-${name}`),
  )
  return [pname, version, output]
}

describe('the package of a store path, from its name', () => {
  test.each([
    ['glibc-2.38-66', 'glibc', '2.38-66', 'out'],
    ['glibc-2.38-66-bin', 'glibc', '2.38-66', 'bin'],
    ['gcc-13.2.0-libgcc', 'gcc', '13.2.0', 'libgcc'],
    ['linux-6.6.30-modules', 'linux', '6.6.30', 'modules'],
    ['mesa-24.0-lib64', 'mesa', '24.0', 'lib64'],
    ['bash-interactive', 'bash-interactive', '', 'out'],
    ['bash-interactive-5.2p26', 'bash-interactive', '5.2p26', 'out'],
    ['foo-1.0-unstable', 'foo', '1.0-unstable', 'out'],
    ['foo-0-unstable-2024-01-01-dev', 'foo', '0-unstable-2024-01-01', 'dev'],
    ['foo-v1.2-dev', 'foo', 'v1.2', 'dev'],
    [
      'nixos-system-host-26.05.20260101.abcdef0',
      'nixos-system-host',
      '26.05.20260101.abcdef0',
      'out',
    ],
    ['source', 'source', '', 'out'],
    ['perl5.38.2-URI-5.21', 'perl5.38.2-URI', '5.21', 'out'],
    ['unit-sshd.service', 'unit-sshd.service', '', 'out'],
    ['hello-2.12.1.drv', 'hello', '2.12.1', 'out'],
    ['hello-2.12.1.tar.gz', 'hello', '2.12.1', 'out'],
    ['1.0-bin', '1.0-bin', '', 'out'],
    ['-1.0', '-1.0', '', 'out'],
    ['x--dev', 'x', '-dev', 'out'],
  ])('%s', (name, ...expected) => {
    expect(guess(name)).toEqual(expected)
  })
})
