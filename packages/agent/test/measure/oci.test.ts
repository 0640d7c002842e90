// What runtimes keep of containers, read without one.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AgentError } from '../../src/error.ts'
import { parseIdMap, parseOciConfig } from '../../src/measure/oci.ts'
import { parseCrunStatus, parseRuncState, unifiedPath } from '../../src/measure/oci-state.ts'
import { matchesGlob } from '../../src/measure/glob.ts'
import { parseNsPids } from '../../src/measure/status.ts'

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

test('ids are like a pattern where a regular expression says so', () => {
  const letters = fc.array(fc.constantFrom('a', 'b', '*'), { maxLength: 8 })
  fc.assert(
    fc.property(letters, letters, (id, pattern) => {
      const [text, glob] = [id.join('').replaceAll('*', 'c'), pattern.join('')]
      expect(matchesGlob(text, glob)).toBe(new RegExp(`^${glob.replaceAll('*', '.*')}$`).test(text))
    }),
    { numRuns: 2000 },
  )
  // No pattern makes us search for ever.
  expect(matchesGlob('a'.repeat(200), `${'*a'.repeat(100)}b`)).toBe(false)
})
