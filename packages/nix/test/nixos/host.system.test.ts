// Generations that real Nix makes, switches and removes.
import { rmSync } from 'node:fs'
import { nixAvailable, nixBuild, runNix, shellDerivation } from '@bagcheck/testkit'
import { afterAll, describe, expect, test } from 'vitest'
import { readBootspec, readNixosHost } from '@bagcheck/nix'
import type { Generation, StorePath } from '@bagcheck/nix'

const PROFILE = '/nix/var/nix/profiles/system'

describe.runIf(nixAvailable())('a system profile of real Nix', () => {
  const nixEnv = (...args: string[]): string => runNix('nix-env', ['--profile', PROFILE, ...args])
  const build = (number: number): StorePath =>
    nixBuild(shellDerivation(`nixos-system-host-${number}`, `mkdir $out; echo ${number} > $out/n`))
  afterAll(() => {
    for (const link of [PROFILE, `${PROFILE}-2-link`]) rmSync(link, { force: true })
  })

  test('has the generations, and the selected one, that nix-env lists', async () => {
    const toplevels = Array.from({ length: 11 }, (_, index) => build(index + 1))
    for (const toplevel of toplevels) nixEnv('--set', toplevel)
    const expected = (selected: number, gone: number[] = []): Generation[] =>
      toplevels
        .map((toplevel, index) => ({
          number: index + 1,
          toplevel,
          selected: index + 1 === selected,
        }))
        .filter(({ number }) => !gone.includes(number))
    expect((await readNixosHost()).generations).toEqual(expected(11))
    nixEnv('--switch-generation', '2')
    nixEnv('--delete-generations', '3', '10')
    expect((await readNixosHost()).generations).toEqual(expected(2, [3, 10]))
    const listed = nixEnv('--list-generations').trim().split('\n')
    expect(listed.map((line) => Number.parseInt(line))).toEqual([1, 2, 4, 5, 6, 7, 8, 9, 11])
    expect(listed[1]).toContain('(current)')
    nixEnv('--delete-generations', 'old')
    expect((await readNixosHost()).generations).toEqual([
      { number: 2, toplevel: toplevels[1], selected: true },
    ])
    expect(await readBootspec(toplevels[1] as StorePath)).toBeUndefined()
  })
})
