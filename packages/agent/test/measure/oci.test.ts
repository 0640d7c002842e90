// What runtimes keep of containers, read without one.
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { AgentError } from '../../src/error.ts'
import { readInstance } from '../../src/measure/instance.ts'
import { parseIdMap, parseOciConfig } from '../../src/measure/oci.ts'
import {
  findOciState,
  parseCrunStatus,
  parseRuncState,
  unifiedPath,
} from '../../src/measure/oci-state.ts'
import { whyNotRootOnly } from '../../src/measure/root-only.ts'
import { parseNsPids } from '../../src/measure/status.ts'
import { followLinks } from '../../src/measure/unit-files.ts'

const PLACE = {
  ...{ id: 'orders-1', stateDir: '/run/runc', stateFile: '/run/runc/orders-1/state.json' },
  cgroupMount: '/sys/fs/cgroup',
}
const RUNC = {
  ...{ id: 'orders-1', init_process_pid: 812, init_process_start: 99_624 },
  created: '2026-11-28T16:06:28.178902107Z',
  config: { labels: ['a=b', 'bundle=/var/lib/orders'], other: 1 },
  cgroup_paths: { '': '/sys/fs/cgroup/pods/orders-1', cpu: '/sys/fs/cgroup/cpu/x' },
}
const CRUN = {
  ...{ pid: 812, 'process-start-time': 99_624, 'cgroup-path': '/pods/orders-1' },
  ...{ bundle: '/var/lib/orders', created: '2026-11-28T16:06:28.178902Z', owner: 'root' },
}
const CONFIG = {
  process: {
    args: ['/nix/store/x/bin/node', 'a b'],
    user: { uid: 990, gid: 991 },
    noNewPrivileges: true,
    capabilities: { bounding: ['CAP_KILL', 'CAP_CHOWN'] },
  },
  root: { path: 'rootfs', readonly: true },
  mounts: [{ destination: '/nix/store', type: 'bind', source: '/nix/store', options: ['ro'] }],
  annotations: { a: 'b', long: 'x'.repeat(2000), '': 'c', number: 1 },
  linux: { seccomp: { defaultAction: 'SCMP_ACT_ERRNO' } },
}

const runc = (changes: object = {}) =>
  parseRuncState(JSON.stringify({ ...RUNC, ...changes }), PLACE)
const crun = (changes: object = {}) =>
  parseCrunStatus(JSON.stringify({ ...CRUN, ...changes }), PLACE)

describe('the state of a container', () => {
  const expected = {
    ...{ id: 'orders-1', bundle: '/var/lib/orders', stateDir: '/run/runc', initPid: 812 },
    ...{ initStartTicks: 99_624, cgroup: '/pods/orders-1', stateFile: PLACE.stateFile },
    createdMs: Date.parse('2026-11-28T16:06:28.178Z'),
  }

  test('says the same, whichever runtime keeps it', () => {
    const configFile = '/var/lib/orders/config.json'
    expect(runc()).toEqual({ ...expected, runtime: 'runc', configFile })
    expect(crun()).toEqual({
      ...{ ...expected, runtime: 'crun' },
      configFile: '/run/runc/orders-1/config.json', // what it copied
    })
  })

  test.each([
    ['another id', runc({ id: 'orders-2' })],
    ['no pid', runc({ init_process_pid: 0 })],
    ['a pid that is a text', crun({ pid: '812' })],
    ['no start', crun({ 'process-start-time': undefined })],
    ['no bundle', runc({ config: {} })],
    ['a bundle that is no path', crun({ bundle: 'orders' })],
    ['no time', runc({ created: 'yesterday' })],
    ['the cgroup of the world', crun({ 'cgroup-path': '' })],
    ['its root', crun({ 'cgroup-path': '/' })],
    ['a cgroup with a way up', crun({ 'cgroup-path': '/a/../b' })],
    ['no cgroup of the unified hierarchy', runc({ cgroup_paths: { cpu: '/x' } })],
  ])('with %s is none', (_name, state) => expect(state).toBeUndefined())

  test('altered anywhere has a value or none', () => {
    for (const [parse, good] of [
      [parseRuncState, RUNC],
      [parseCrunStatus, CRUN],
    ] as const) {
      const text = JSON.stringify(good)
      for (let length = 0; length < text.length; length += 1)
        expect(parse(text.slice(0, length), PLACE)).toBeUndefined()
      fc.assert(
        fc.property(fc.nat(text.length - 1), fc.string({ maxLength: 4 }), (at, put) => {
          parse(text.slice(0, at) + put + text.slice(at + 1), PLACE)
        }),
      )
    }
  })

  test('may name the cgroup as its runtime saw it mounted', () => {
    const hybrid = '/sys/fs/cgroup/unified'
    expect(unifiedPath('/sys/fs/cgroup/unified/a', hybrid)).toBe('/a')
    expect(unifiedPath('/sys/fs/cgroup/a', hybrid)).toBe('/a')
    expect(unifiedPath('/sys/fs/cgroup/unified/a', '/sys/fs/cgroup')).toBe('/unified/a')
    expect(unifiedPath('/sys/fs/cgroup/', hybrid)).toBeUndefined()
  })
})

describe('the configuration of a container', () => {
  test('is read for what starts its program, and bounded', () => {
    expect(parseOciConfig(JSON.stringify(CONFIG))).toEqual({
      ...{ args: ['/nix/store/x/bin/node', 'a b'], uid: 990, gid: 991, noNewPrivs: true },
      ...{ capabilities: ['CAP_CHOWN', 'CAP_KILL'], seccomp: true, readonlyRoot: true },
      mounts: [{ destination: '/nix/store', type: 'bind', source: '/nix/store', readonly: true }],
      annotations: { a: 'b' },
    })
  })

  test.each([
    ['no JSON', '{'],
    ['no object', '[]'],
    ['no process', '{}'],
    ['no arguments', JSON.stringify({ process: { args: [] } })],
    ['arguments that are no texts', JSON.stringify({ process: { args: [1] } })],
    ['a user that is none', JSON.stringify({ process: { args: ['a'], user: { uid: -1 } } })],
  ])('that is %s is refused', (_name, text) => {
    expect(() => parseOciConfig(text)).toThrow(expect.objectContaining({ code: 'UNIT_RECORD' }))
  })

  test('says nothing is confined where it says nothing', () => {
    expect(parseOciConfig('{"process":{"args":["a"]}}')).toMatchObject({
      ...{ noNewPrivs: false, seccomp: false, readonlyRoot: false, uid: 0, capabilities: [] },
    })
  })
})

test('maps of ids are lines of three numbers', () => {
  expect(parseIdMap('         0     200000      65536\n')).toEqual([
    { inside: 0, outside: 200_000, count: 65_536 },
  ])
  for (const text of ['0 1\n', 'a b c\n', '0 0 1 2\n'])
    expect(() => parseIdMap(text)).toThrow(expect.objectContaining({ code: 'PROC_FORMAT' }))
})

test('pids are ours first, the innermost last', () => {
  expect(parseNsPids('Name:\tNSpid:\t9\nNSpid:\t812\t7\t1\n')).toEqual([812, 7, 1])
  expect(() => parseNsPids('Name:\tx\n')).toThrow(AgentError)
})

const asRoot = process.getuid?.() === 0

describe.runIf(asRoot)('a state directory', () => {
  let directory: string
  const file = (): string => join(directory, 'orders-1', 'state.json')
  // This very process as a container: it lives, and is in that cgroup.
  const write = (changes: object = {}): void => {
    const { startTicks } = readInstance(process.pid)
    const state = {
      ...{ ...RUNC, init_process_pid: process.pid, init_process_start: startTicks },
      config: { labels: [`bundle=${directory}`] },
      ...changes,
    }
    writeFileSync(file(), JSON.stringify(state))
  }
  const find = (cgroup = '/pods/orders-1'): unknown => {
    try {
      return findOciState([directory], '/sys/fs/cgroup', cgroup)
    } catch (error) {
      return (error as AgentError).code
    }
  }
  beforeEach(() => {
    directory = mkdtempSync('/run/bagcheck-oci-')
    mkdirSync(join(directory, 'orders-1'))
    writeFileSync(join(directory, 'config.json'), JSON.stringify(CONFIG))
    write()
  })
  afterEach(() => rmSync(directory, { recursive: true }))

  test('is believed of a process only that is alive, and where it says', () => {
    // The process of this test is in no such cgroup.
    expect(find()).toBeUndefined()
    expect(find('/elsewhere')).toBeUndefined()
  })

  test('names what is open to others on the way to a file', () => {
    expect(whyNotRootOnly(file())).toBeUndefined()
    chmodSync(file(), 0o622)
    expect(whyNotRootOnly(file())).toContain('mode 622')
    chmodSync(file(), 0o600)
    chownSync(join(directory, 'orders-1'), 1000, 0)
    expect(whyNotRootOnly(file())).toContain('user 1000')
    chownSync(join(directory, 'orders-1'), 0, 0)
    chmodSync(directory, 0o777)
    expect(whyNotRootOnly(file())).toContain('mode 777')
    chmodSync(directory, 0o1777) // nobody else replaces what is root's there
    expect(whyNotRootOnly(file())).toBeUndefined()
    expect(whyNotRootOnly(join(directory, 'none'))).toContain('ENOENT')
  })

  test('is looked at where its links lead, too', () => {
    const link = `${directory}-link`
    symlinkSync(join(directory, 'orders-1'), link)
    try {
      expect(whyNotRootOnly(join(link, 'state.json'))).toBeUndefined()
      chmodSync(directory, 0o777)
      expect(whyNotRootOnly(join(link, 'state.json'))).toContain('mode 777')
    } finally {
      rmSync(link)
    }
  })

  test('links of unit files are followed to the end, with the age of the newest', () => {
    const links = ['one', 'two'].map((name) => join(directory, name))
    symlinkSync('two', links[0]!)
    symlinkSync(join(directory, 'orders-1'), links[1]!)
    const { file: end, newestLinkMs } = followLinks(join(links[0]!, 'state.json'))
    expect(end).toBe(file())
    expect(Date.now() - newestLinkMs).toBeLessThan(60_000)
    expect(followLinks(file()).newestLinkMs).toBe(0)
    symlinkSync('round', join(directory, 'round'))
    expect(() => followLinks(join(directory, 'round'))).toThrow(
      expect.objectContaining({ code: 'UNIT_RECORD' }),
    )
  })
})
