import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { bootspecStorePaths, parseBootspec } from '@bagcheck/nix'
import type { Bootspec } from '@bagcheck/nix'
import { document, systemPath, v1 } from './documents.ts'

const parse = (json: unknown): Bootspec => parseBootspec(Buffer.from(JSON.stringify(json)))

describe('a bootspec', () => {
  test('is read with its specialisations and the members of vendors', () => {
    const vendor = { 'org.nixos.systemd-boot': { sortKey: 'nixos', devicetree: null } }
    const bootspec = parse(
      document('a', {}, { ...vendor, 'org.nixos.specialisation.v1': { debug: document('b') } }),
    )
    expect(bootspec).toMatchObject({
      system: 'x86_64-linux',
      kernelParams: ['loglevel=4', 'dyndbg="file x +p"'],
      toplevel: systemPath('a'),
      init: `${systemPath('a')}/init`,
      vendors: new Map(Object.entries(vendor)),
    })
    const debug = bootspec.specialisations.get('debug')
    expect(debug?.toplevel).toBe(systemPath('b'))
    expect(bootspecStorePaths(bootspec)).toContain(systemPath('b'))
    expect(bootspecStorePaths(bootspec)).toHaveLength(4) // kernel and initrd are the same
  })

  test('may boot without an initrd, and then has no such member', () => {
    const bootspec = parse(document('a', { initrd: undefined }))
    expect('initrd' in bootspec).toBe(false)
    const secrets = parse(document('a', { initrdSecrets: `${systemPath('s')}/bin/append` }))
    expect(secrets.initrdSecrets).toBe(`${systemPath('s')}/bin/append`)
  })

  test.each<[string, unknown]>([
    ['a list', []],
    ['null', null],
    ['no version 1', { 'org.nixos.bootspec.v2': v1('a') }],
    ['version 1 that is null', { 'org.nixos.bootspec.v1': null }],
    ...['system', 'label', 'kernel', 'kernelParams', 'init', 'toplevel'].flatMap(
      (name): [string, unknown][] => [
        [`no ${name}`, document('a', { [name]: undefined })],
        [`${name} that is null`, document('a', { [name]: null })],
        [`${name} that is a number`, document('a', { [name]: 1 })],
      ],
    ),
    ['an initrd that is null', document('a', { initrd: null })],
    ['secrets that are null', document('a', { initrdSecrets: null })],
    ['an unknown member of version 1', document('a', { devicetree: '/x' })],
    ['a label of two lines', document('a', { label: 'a\nb' })],
    ['an empty label', document('a', { label: '' })],
    ['a parameter with a line feed', document('a', { kernelParams: ['a\nb'] })],
    ['a parameter that is a number', document('a', { kernelParams: [1] })],
    ['a kernel outside of the store', document('a', { kernel: '/boot/vmlinuz' })],
    ['a kernel through ".."', document('a', { kernel: `${systemPath('k')}/../bzImage` })],
    ['a kernel that is relative', document('a', { kernel: 'bzImage' })],
    ['a toplevel inside a store path', document('a', { toplevel: `${systemPath('a')}/system` })],
    ['init of another system', document('a', { init: `${systemPath('b')}/init` })],
    ['specialisations in a list', document('a', {}, { 'org.nixos.specialisation.v1': [] })],
    ['a broken specialisation', document('a', {}, { 'org.nixos.specialisation.v1': { x: {} } })],
  ])('is refused with %s', (_, json) => {
    expect(() => parse(json)).toThrow(expect.objectContaining({ code: 'BOOTSPEC' }))
  })

  test('made of anything is refused with a code', () => {
    const any = fc.jsonValue({ maxDepth: 3 })
    const members = fc.record(
      { kernel: any, init: any, label: any, initrd: any },
      { requiredKeys: [] },
    )
    fc.assert(
      fc.property(members, any, (changed, children) => {
        try {
          parse(document('a', changed, { 'org.nixos.specialisation.v1': children }))
        } catch (error) {
          expect(error).toMatchObject({ name: 'NixError' })
        }
      }),
    )
  })
})
