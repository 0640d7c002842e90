import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { UnitRecord } from '@bagcheck/api'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { AgentError } from '../../src/error.ts'
import { isWithin, parseCgroupPath, parseProcs } from '../../src/measure/cgroup.ts'
import { parseExecRecord } from '../../src/measure/exec-record.ts'
import { formatDevice } from '../../src/measure/instance.ts'
import { isKernelRegion, parseMaps, regionBytes } from '../../src/measure/maps.ts'
import {
  findCgroup2,
  isForeignFileSystem,
  mountsBelow,
  parseMountinfo,
} from '../../src/measure/mounts.ts'
import { parseStat } from '../../src/measure/stat.ts'
import { combineThreads, parseStatus } from '../../src/measure/status.ts'
import { parseServiceProperties, systemdUnitOf, unitObjectPath } from '../../src/measure/systemd.ts'

const STAT = `4025 (MainThread) S 4018 4015 5814 0 -1 4227340 3486 0 2 0 2 0 0 0 20 0 7 0 444732 1136 94 18446744073709551615 4198400 4199000 140736840190064 0 0 0 0 16781312 17922 0 0 0 17 1 0 0 0 0 0 1 2 3 4 5 6 7 0\n`
const STATUS = `Name:\tsleep
State:\tS (sleeping)
Tgid:\t1
Pid:\t1
TracerPid:\t0
Uid:\t990\t990\t990\t990
Gid:\t991\t991\t991\t991
CapInh:\t0000000000000000
CapPrm:\t0000000000000400
CapEff:\t0000000000000400
CapBnd:\t000001fffeffffff
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
`
const MAPS = `5627e12df000-5627e12e3000 r--p 00000000 fe:00 247530                     /usr/bin/mawk
5627e12eb000-5627e1304000 r-xp 00004000 fe:00 247530                     /usr/bin/mawk
00400000-00401000 rwxp 00000000 00:00 0 
7ff842f82000-7ff8430d8000 r-xp 00026000 103:1a 326269                     /nix/store/a b\\012c (deleted)
7ff84322f000-7ff843231000 r-xp 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`
const MOUNTINFO = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
24 22 0:22 /sub /nix/store ro,relatime shared:2 master:3 - btrfs /dev/vdb ro,subvol=/x
25 24 0:23 / /nix/store/a\\040b\\011c\\012d\\134e rw - tmpfs none rw
`
const RECORD: UnitRecord = {
  schema: 'bagcheck.unit/v1',
  name: 'orders',
  cgroup: '/bagcheck/orders',
  cgroupInode: '77',
  executable: '/nix/store/x/bin/node',
  arguments: ['--jitless'],
  uid: 990,
  gid: 990,
  noNewPrivs: true,
  pid: 1,
  startTicks: 2,
  startCode: 3,
  startStack: 4,
  executableDevice: '254:0',
  executableInode: '5',
}
const UNIT_FILE = '/etc/systemd/system/orders.service'
const DROP_IN = '/run/systemd/system/orders.service.d/override.conf'
const SERVICE = `{"type":"a{sv}","data":[{${[
  ...['"Id":{"type":"s","data":"\\"data\\":18446744073709551615}"}'],
  ...['"ControlGroup":{"type":"s","data":"/system.slice/orders.service"}'],
  ...['"MainPID":{"type":"u","data":812}', '"NoNewPrivileges":{"type":"b","data":true}'],
  '"ExecStart":{"type":"a(sasbttttuii)","data":[["/nix/store/x/bin/node",["node","--jitless","a b"],false,1,2,0,0,812,0,0]]}',
  ...[`"FragmentPath":{"type":"s","data":"${UNIT_FILE}"}`],
  ...[`"DropInPaths":{"type":"as","data":["${DROP_IN}"]}`],
  ...[
    'SourcePath',
    'User',
    'Group',
    'ProtectSystem',
    'ProtectHome',
    'RootDirectory',
    'RootImage',
  ].map((name) => `"${name}":{"type":"s","data":""}`),
  ...['Transient', 'NeedDaemonReload', 'DynamicUser', 'PrivateTmp', 'Delegate'].map(
    (name) => `"${name}":{"type":"b","data":false}`,
  ),
  ...['"MemoryDenyWriteExecute":{"type":"b","data":false}'],
  ...['"CapabilityBoundingSet":{"type":"t","data":18446744073709551615}'],
  ...['"AmbientCapabilities":{"type":"t","data":0}'],
  ...['"RestrictNamespaces":{"type":"t","data":2114060288}'],
  ...['"SystemCallFilter":{"type":"(bas)","data":[true,["write","read"]]}'],
  ...['ReadOnlyPaths', 'ReadWritePaths', 'InaccessiblePaths'].map(
    (name) => `"${name}":{"type":"as","data":["/srv"]}`,
  ),
].join(',')}}]}`

/** What a parser does with `text`: a value, or the code of its error; anything else fails the test. */
function outcome(parse: (text: string) => unknown, text: string): unknown {
  try {
    return parse(text)
  } catch (error) {
    if (error instanceof AgentError) return error.code
    throw error
  }
}

describe('/proc/PID/stat', () => {
  test('is read from the last parenthesis on, whatever the process calls itself', () => {
    expect(parseStat(STAT)).toEqual({
      pid: 4025,
      comm: 'MainThread',
      state: 'S',
      kernelThread: false,
      threads: 7,
      startTicks: 444732,
      startCode: 4198400,
      startStack: 140736840190064,
      argumentsAt: [4, 5],
      environmentAt: [6, 7],
    })
    for (const comm of [') S 1 2 3', '((', '\n', 'a) Z 1', ''])
      expect(parseStat(STAT.replace('MainThread', comm))).toMatchObject({
        comm,
        startTicks: 444732,
      })
  })

  test('tells kernel threads', () => {
    expect(parseStat(STAT.replace('4227340', '2129984')).kernelThread).toBe(true)
  })

  test('cut off anywhere is an error', () => {
    for (let length = 0; length < STAT.length; length += 1)
      expect(outcome(parseStat, STAT.slice(0, length))).toBe('PROC_FORMAT')
  })
})

describe('/proc/PID/status', () => {
  test('gives credentials', () => {
    expect(parseStatus(STATUS)).toEqual({
      uids: [990, 990, 990, 990],
      gids: [991, 991, 991, 991],
      capabilities: {
        inheritable: '0000000000000000',
        permitted: '0000000000000400',
        effective: '0000000000000400',
        bounding: '000001fffeffffff',
        ambient: '0000000000000000',
      },
      noNewPrivs: true,
      seccomp: 2,
      tracerPid: 0,
    })
  })

  test('cut off before its last fact is an error', () => {
    const end = STATUS.indexOf('Seccomp')
    for (let length = 0; length < end - 2; length += 1)
      expect(outcome(parseStatus, STATUS.slice(0, length))).toBe('PROC_FORMAT')
  })

  test('of several threads tells the most powerful, and no two users', () => {
    const one = parseStatus(STATUS)
    const other = parseStatus(
      STATUS.replace('NoNewPrivs:\t1', 'NoNewPrivs:\t0')
        .replace('Seccomp:\t2', 'Seccomp:\t0')
        .replace('CapEff:\t0000000000000400', 'CapEff:\t8000000000000001')
        .replace('TracerPid:\t0', 'TracerPid:\t9'),
    )
    expect(combineThreads(1, [one, other])).toMatchObject({
      noNewPrivs: false,
      seccomp: 0,
      tracerPid: 9,
      capabilities: { effective: '8000000000000401', permitted: '0000000000000400' },
    })
    const root = parseStatus(STATUS.replace('990\t990\t990\t990', '990\t0\t990\t990'))
    expect(() => combineThreads(1, [one, root])).toThrow(
      expect.objectContaining({ code: 'THREADS_DIFFER' }),
    )
  })
})

describe('/proc/PID/maps', () => {
  test('gives executable mappings, their files as map_files and mountinfo name them', () => {
    const regions = parseMaps(MAPS).executable
    expect(regions.map(({ path }) => path)).toEqual([
      '/usr/bin/mawk',
      '',
      '/nix/store/a b\\012c (deleted)',
      '[vdso]',
      '[vsyscall]',
    ])
    expect(regions[1]).toMatchObject({ start: '400000', end: '401000', inode: '0' })
    expect(regions[2]?.device).toBe('259:26')
    expect(regions.map(isKernelRegion)).toEqual([false, false, false, true, true])
    expect(regionBytes(regions[4]!)).toBe(4096)
  })

  test('a file or a named mapping cannot pass for the kernel’s', () => {
    const named = MAPS.replace('00:00 0                          [vdso]', '00:01 9    [vdso]')
    expect(parseMaps(named).executable.filter(isKernelRegion)).toHaveLength(1)
    const anonymous = MAPS.replace('[vdso]', '[anon:[vdso]]')
    expect(parseMaps(anonymous).executable.filter(isKernelRegion)).toHaveLength(1)
  })

  test('cut off within a line is an error', () => {
    for (let length = 0; length < MAPS.length; length += 1) {
      const whole = length === 0 || MAPS[length - 1] === '\n'
      const seen = outcome(parseMaps, MAPS.slice(0, length))
      if (whole) expect(seen).toBeInstanceOf(Object)
      else expect(seen).toBe('PROC_FORMAT')
    }
  })

  test('more mappings than the limit are refused', () => {
    const line = MAPS.split('\n')[0]
    expect(outcome(parseMaps, `${line}\n`.repeat(50_001))).toBe('MEASUREMENT_LIMIT')
  })
})

describe('mountinfo', () => {
  test('is read with optional fields and octal escapes', () => {
    const mounts = parseMountinfo(MOUNTINFO)
    expect(mounts[2]).toEqual({
      id: 24,
      device: '0:22',
      root: '/sub',
      mountPoint: '/nix/store',
      fsType: 'btrfs',
      readOnly: true,
    })
    expect(mountsBelow(mounts, '/nix/store')).toEqual(['/nix/store/a b\tc\nd\\e'])
    expect(findCgroup2(mounts)?.mountPoint).toBe('/sys/fs/cgroup/unified')
  })

  test('of a root without visible mounts is empty', () => {
    expect(parseMountinfo('')).toEqual([])
  })

  test('cut off within a line is an error', () => {
    for (let length = 1; length < MOUNTINFO.length; length += 1) {
      if (MOUNTINFO[length - 1] === '\n') continue
      expect(outcome(parseMountinfo, MOUNTINFO.slice(0, length))).toBe('PROC_FORMAT')
    }
  })

  test('tells file systems that answer as another program likes', () => {
    const foreign = ['fuse', 'fuse.sshfs', 'fuseblk', 'nfs', 'nfs4', 'cifs', '9p', 'virtiofs']
    expect(foreign.every(isForeignFileSystem)).toBe(true)
    expect(['ext4', 'btrfs', 'tmpfs', 'overlay', 'zfs', 'xfs'].some(isForeignFileSystem)).toBe(
      false,
    )
  })
})

describe('cgroups', () => {
  test.each([
    ['0::/system.slice/orders.service\n', '/system.slice/orders.service'],
    ['9:name=systemd:/x\n4:memory:/y\n0::/bagcheck/orders\n', '/bagcheck/orders'],
    ['0::/\n', '/'],
    ['0::/gone (deleted)\n', '/gone'],
  ])('%j is in the unified hierarchy at %j', (text, path) => {
    expect(parseCgroupPath(text)).toBe(path)
  })

  test.each(['', '4:memory:/y\n', '0::/../other\n', '0::relative\n', '0::/a'])(
    '%j is no path that can be measured',
    (text) => {
      expect(outcome(parseCgroupPath, text)).toBe('PROC_FORMAT')
    },
  )

  test('a name that merely begins the same is not within', () => {
    expect(isWithin('/a/b', '/a')).toBe(true)
    expect(isWithin('/ab', '/a')).toBe(false)
  })

  test('a process that cannot be seen is an error, as is anything but pids', () => {
    expect(parseProcs('1\n22\n')).toEqual([1, 22])
    expect(parseProcs('')).toEqual([])
    expect(outcome(parseProcs, '1\n0\n')).toBe('PROCESS_HIDDEN')
    for (const text of ['1', '+1\n', '01\n', '1 \n', '\n'])
      expect(outcome(parseProcs, text)).toBe('PROC_FORMAT')
  })
})

describe('a record of bagcheck exec', () => {
  test('is read as it was written', () => {
    expect(parseExecRecord(JSON.stringify(RECORD))).toEqual(RECORD)
  })

  test.each([
    { executableDevice: '65027' },
    { executableDevice: 65_027 },
    { executableDevice: '254:0:1' },
    { cgroupInode: 77 },
    { executableInode: '0x5' },
    { recordedAt: 6 },
  ])('with %j is refused: there is one spelling, and no other member', (change) => {
    expect(outcome(parseExecRecord, JSON.stringify({ ...RECORD, ...change }))).toBe('UNIT_RECORD')
  })

  test('without any of its fields, or with one of another kind, is refused', () => {
    for (const key of Object.keys(RECORD)) {
      for (const value of [undefined, null, {}, -1, ''])
        expect(outcome(parseExecRecord, JSON.stringify({ ...RECORD, [key]: value }))).toBe(
          'UNIT_RECORD',
        )
    }
    for (const cgroup of ['/', 'relative'])
      expect(outcome(parseExecRecord, JSON.stringify({ ...RECORD, cgroup }))).toBe('UNIT_RECORD')
  })

  test('cut off anywhere is refused', () => {
    const text = JSON.stringify(RECORD)
    for (let length = 0; length < text.length; length += 1)
      expect(outcome(parseExecRecord, text.slice(0, length))).toBe('UNIT_RECORD')
  })
})

describe('systemd', () => {
  test.each([
    ['/system.slice/orders.service', 'orders.service', '/system.slice/orders.service'],
    ['/system.slice/orders.service/inner', 'orders.service', '/system.slice/orders.service'],
    [
      '/user.slice/user-1000.slice/user@1000.service/app.slice/orders.service',
      'user@1000.service',
      '/user.slice/user-1000.slice/user@1000.service',
    ],
    ['/machine.slice/x.scope', 'x.scope', '/machine.slice/x.scope'],
  ])('%s belongs to the outermost unit', (path, name, cgroup) => {
    expect(systemdUnitOf(path)).toEqual({ name, cgroup })
  })

  test('a slice alone is no unit', () => {
    expect(systemdUnitOf('/system.slice')).toBeUndefined()
    expect(systemdUnitOf('/docker/0123')).toBeUndefined()
  })

  test('answers with arguments that hold spaces', () => {
    expect(parseServiceProperties(SERVICE)).toEqual({
      controlGroup: '/system.slice/orders.service',
      mainPid: 812,
      executable: '/nix/store/x/bin/node',
      arguments: ['--jitless', 'a b'],
      commandPid: 812,
      noNewPrivs: true,
      fragmentPath: UNIT_FILE,
      dropInPaths: [DROP_IN],
      source: '',
      transient: false,
      needDaemonReload: false,
      settings: expect.objectContaining({
        noNewPrivileges: true,
        // All of 64 bits, which a number does not hold.
        capabilityBoundingSet: 'ffffffffffffffff',
        ambientCapabilities: '0000000000000000',
        restrictNamespaces: '000000007e020000',
        systemCallFilter: {
          allowList: true,
          calls: 2,
          sha256: createHash('sha256').update('read\nwrite').digest('hex'),
        },
        readOnlyPaths: ['/srv'],
      }),
    })
  })

  test('tells which process ran that command, unless PID 1 read its unit files since', () => {
    const reloaded = SERVICE.replace('1,2,0,0,812,0,0', '0,0,0,0,0,0,0')
    expect(parseServiceProperties(reloaded)).toMatchObject({ mainPid: 812, commandPid: 0 })
    const none = SERVICE.replace('1,2,0,0,812,0,0', '1,2,0,0')
    expect(outcome(parseServiceProperties, none)).toBe('UNIT_RECORD')
  })

  test('a service with several commands, or a cut answer, is refused', () => {
    const two = SERVICE.replace(/\[\[(.*0)\]\]/, '[[$1],[$1]]')
    expect(outcome(parseServiceProperties, two)).toBe('UNIT_RECORD')
    for (let length = 0; length < SERVICE.length; length += 1)
      expect(outcome(parseServiceProperties, SERVICE.slice(0, length))).toBe('UNIT_RECORD')
  })

  test('names are escaped as object paths', () => {
    expect(unitObjectPath('orders.service')).toBe('/org/freedesktop/systemd1/unit/orders_2eservice')
    expect(unitObjectPath('1@b.service')).toBe('/org/freedesktop/systemd1/unit/_31_40b_2eservice')
  })
})

describe('every parser', () => {
  test.each([
    ['stat', parseStat, STAT],
    ['status', parseStatus, STATUS],
    ['maps', parseMaps, MAPS],
    ['mountinfo', parseMountinfo, MOUNTINFO],
    ['cgroup', parseCgroupPath, '0::/a/b\n'],
    ['cgroup.procs', parseProcs, '1\n2\n'],
    ['unit record', parseExecRecord, JSON.stringify(RECORD)],
    ['busctl', parseServiceProperties, SERVICE],
  ] as [string, (text: string) => unknown, string][])(
    'of %s answers altered text with a value or a coded error',
    (_name, parse, text) => {
      fc.assert(
        fc.property(
          fc.nat(text.length - 1),
          fc.string({ unit: 'binary', maxLength: 4 }),
          (at, put) => {
            outcome(parse, text.slice(0, at) + put + text.slice(at + 1))
          },
        ),
        { numRuns: 2000 },
      )
    },
  )

  test('of live files agrees with the kernel about this process', () => {
    expect(parseStat(readFileSync('/proc/self/stat', 'utf8')).pid).toBe(process.pid)
    const { uids } = parseStatus(readFileSync('/proc/self/status', 'utf8'))
    expect(uids[0]).toBe(process.getuid?.())
    const mounts = parseMountinfo(readFileSync('/proc/self/mountinfo', 'utf8'))
    expect(mounts.some(({ mountPoint }) => mountPoint === '/proc')).toBe(true)
    const maps = parseMaps(readFileSync('/proc/self/maps', 'utf8')).executable
    expect(maps.some(({ path }) => path === process.execPath)).toBe(true)
  })
})

test('device numbers are split as the kernel splits them', () => {
  expect(formatDevice(0xfe00n)).toBe('254:0')
  expect(formatDevice(1n)).toBe('0:1')
  expect(formatDevice(0x1031an)).toBe('259:26')
  expect(formatDevice(0x100800n)).toBe('8:256')
})
