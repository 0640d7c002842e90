// What the measurement adds to mapped files: memory, descriptors, files that interpreters read, namespaces,
// confinement, the host. Each denies with its own code, and its benign twin passes.
import { sha256Hex, type StorePath } from '@bagcheck/nix'
import { runningHost } from '@bagcheck/testkit'
import { describe, expect, test } from 'vitest'
import { DENIAL_CODES, evaluate, type HostFacts } from '../src/index.ts'
import {
  NODE,
  ORDERS,
  codesOf,
  compile,
  context,
  factsWith,
  inventPath,
  judge,
  passing,
  policySource,
  verified,
  type Edit,
  type Editable,
} from './installation.ts'

type Process = Parameters<Edit>[0]['processes'][number]
const main =
  (change: (process: Process) => void): Edit =>
  ({ processes: [process] }) => {
    if (process === undefined) throw new TypeError('expected a process')
    change(process)
  }
const NODE_DIGEST = sha256Hex('node')
const policyWith = (...lines: string[]) => verified(`${policySource()}${lines.join('\n')}\n`)
const codes = (change: (process: Process) => void, policy = verified()) =>
  codesOf(judge(factsWith(main(change)), policy))

describe('search paths', () => {
  const path =
    (storePaths: string[], elsewhere: number): Edit =>
    ({ processes: [process] }) =>
      void process?.searchPaths.push({
        ...{ variable: 'NODE_PATH', elsewhere },
        storePaths: storePaths as StorePath[],
      })

  test.each<[what: string, edit: Edit]>([
    ['outside of the store', path([], 1)],
    ['partly outside of the store', path([ORDERS.root], 1)],
    ['in the store, of no closure', path([ORDERS.root, inventPath('stranger')], 0)],
  ])('SEARCH_PATH_FOREIGN: %s', (_what, edit) =>
    expect(codesOf(judge(factsWith(edit)))).toEqual(['SEARCH_PATH_FOREIGN']),
  )

  test('SEARCH_PATH_FOREIGN: of a fork of the main process', () => {
    const edit: Edit = (facts) => {
      const [process] = facts.processes
      if (process === undefined) throw new TypeError('expected a process')
      const searchPaths = [{ variable: 'NODE_PATH', storePaths: [], elsewhere: 1 }]
      facts.processes.push({ ...process, pid: 101, searchPaths })
    }
    expect(codesOf(judge(factsWith(edit)))).toEqual(['SEARCH_PATH_FOREIGN'])
  })

  test('of the closure pass', () =>
    expect(codesOf(judge(factsWith(path([ORDERS.root], 0))))).toEqual([]))
})

describe('executable memory', () => {
  const jit = (more = '') =>
    policyWith(
      '    allow:',
      `      jit: [{ runtime: ${NODE_DIGEST}, maxRegions: 3, maxBytes: 12288${more} }]`,
    )
  type Memory = Process['executableMemory'][number]
  const memory =
    (...uses: Partial<Memory>[]) =>
    (process: Process) =>
      void process.executableMemory.push(
        ...uses.map((use) => ({
          ...{ kind: 'anonymous' as const, name: '', regions: 1, bytes: 4096 },
          ...use,
        })),
      )

  test.each<[code: string, what: string, ...uses: Partial<Memory>[]]>([
    ['JIT_NAME_NOT_ALLOWED', 'with a name', { name: '[anon:v8]' }],
    ['JIT_NAME_NOT_ALLOWED', 'that is the stack', { name: '[stack]' }],
    ['MEMFD_EXECUTABLE', 'of a memfd', { kind: 'memfd', name: 'doublemapper' }],
    ['SHARED_MEMORY_EXECUTABLE', 'of a SysV segment', { kind: 'shared', name: '/SYSV00000000' }],
    ['JIT_REGIONS', 'in too many regions', { regions: 2 }, { regions: 2, bytes: 4096 }],
    ['JIT_REGIONS', 'in too many regions of which one is all', { regions: 4 }],
    ['JIT_BYTES', 'of too many bytes', { bytes: 12_289 }],
  ])('%s: %s', (code, _what, ...uses) => {
    const [first] = uses
    expect(codes(memory(...uses), jit())).toEqual([code])
    // The same as the allowance has it passes; shared memory never does.
    const allowed = jit(`, allowNames: ['[anon:v8]', '[stack]'], allowMemfdNames: [doublemapper]`)
    const named = first?.kind !== 'shared' && first?.name !== undefined
    expect(codes(memory(...uses), allowed)).toEqual(named ? [] : [code])
  })

  test('names of an allowance are not names for another kind of memory, or for another program', () => {
    const memfd = jit(`, allowMemfdNames: ['[stack]']`)
    expect(codes(memory({ name: '[stack]' }), memfd)).toEqual(['JIT_NAME_NOT_ALLOWED'])
    const anonymous = jit(`, allowNames: [doublemapper]`)
    expect(codes(memory({ kind: 'memfd', name: 'doublemapper' }), anonymous)).toEqual([
      'MEMFD_EXECUTABLE',
    ])
    const other = policyWith(
      '    allow:',
      `      jit: [{ runtime: ${sha256Hex('dotnet')}, maxRegions: 9, maxBytes: 99999, allowMemfdNames: [doublemapper] }]`,
    )
    expect(codes(memory({ kind: 'memfd', name: 'doublemapper' }), other)).toEqual([
      'MEMFD_EXECUTABLE',
    ])
  })

  test('regions and bytes of all names count together', () => {
    const allowed = jit(`, allowNames: ['[anon:a]'], allowMemfdNames: [b]`)
    const each = { regions: 1, bytes: 4096 }
    const three = [
      each,
      { ...each, name: '[anon:a]' },
      { ...each, kind: 'memfd' as const, name: 'b' },
    ]
    expect(codes(memory(...three), allowed)).toEqual([])
    expect(codes(memory(...three, { ...each, regions: 1, bytes: 0 }), allowed)).toEqual([
      'JIT_REGIONS',
    ])
  })
})

describe('descriptors', () => {
  const holding = (kind: Process['descriptors'][number]['kind']) => (process: Process) =>
    void process.descriptors.push({ kind, name: `anon_inode:${kind}`, count: 1 })
  const allowable = [
    ...(['memfd', 'userfaultfd', 'io-uring-files', 'bpf', 'perf-event'] as const),
    ...(['fanotify', 'fuse', 'block-device', 'unknown'] as const),
  ]

  test.each(allowable)('%s denies, and passes where the role allows that kind', (kind) => {
    expect(codes(holding(kind))).toEqual(['DESCRIPTOR_NOT_ALLOWED'])
    const others = allowable.filter((other) => other !== kind)
    const allow = (...kinds: readonly string[]) =>
      policyWith('    allow:', `      descriptors: [io-uring, ${kinds.join(', ')}]`)
    expect(codes(holding(kind), allow(...others))).toEqual(['DESCRIPTOR_NOT_ALLOWED'])
    expect(codes(holding(kind), allow(kind))).toEqual([])
  })

  test.each([
    ['STORE_WRITABLE', 'store-writable'],
    ['PROCESS_MEMORY', 'process-memory'],
    ['KERNEL_MEMORY', 'kernel-memory'],
  ] as const)('%s denies, and no role can allow it', (code, kind) => {
    expect(codes(holding(kind))).toEqual([code])
    const text = `${policySource()}    allow: { descriptors: [${kind}] }\n`
    expect(() => compile(text)).toThrow('descriptors[0]: expected')
  })

  test('a ring without files passes, unless the role says that none may', () => {
    expect(codes(() => undefined)).toEqual([])
    expect(codes(() => undefined, policyWith('    allow: { descriptors: [] }'))).toEqual([
      'DESCRIPTOR_NOT_ALLOWED',
    ])
  })

  test('count in every process', () => {
    const sibling = factsWith(({ processes }) => {
      const [first] = processes
      if (first === undefined) return
      const descriptors = [{ kind: 'memfd' as const, name: '/memfd:x (deleted)', count: 1 }]
      processes.push({ ...first, pid: 101, descriptors })
    })
    expect(codesOf(judge(sibling))).toContain('DESCRIPTOR_NOT_ALLOWED')
  })
})

describe('files that an interpreter reads', () => {
  const reading =
    (path: string, isStoreFile = false) =>
    (process: Process) => {
      process.dataFiles.count += 1
      process.dataFiles.files.push({ path, device: '8:1', inode: '7', isStoreFile })
    }
  const foreign = (...paths: string[]) => policyWith(`    foreignFiles: [${paths.join(', ')}]`)

  test('deny outside the closure, also in the store, where the role says what may be read', () => {
    const nothing = foreign()
    expect(codes(reading('/tmp/evil.sh'), nothing)).toEqual(['FOREIGN_FILE'])
    const other = reading(`${inventPath('other')}/lib/x.jar`, true)
    expect(codes(other, nothing)).toEqual(['FOREIGN_FILE'])
    expect(codes(reading(ORDERS.script, false), nothing)).toEqual(['FOREIGN_FILE'])
    expect(codes(reading(ORDERS.script, true), nothing)).toEqual([])
  })

  test('are told and not judged where it does not: ordinary services read data', () => {
    expect(codes(reading('/usr/lib/locale/C.utf8/LC_CTYPE'))).toEqual([])
  })

  test('pass where the role names the file or its directory, whole names only', () => {
    const policy = foreign('/etc/localtime', '/srv/data/')
    expect(codes(reading('/etc/localtime'), policy)).toEqual([])
    expect(codes(reading('/srv/data/a/b'), policy)).toEqual([])
    for (const path of ['/etc/localtime2', '/etc/localtime/x', '/srv/data', '/srv/database'])
      expect(codes(reading(path), policy)).toEqual(['FOREIGN_FILE'])
  })

  test('pass as files of the store by name, and only if they are the store’s', () => {
    const policy = foreign("'glibc-locales-*/lib/locale/locale-archive'")
    const archive = `${inventPath('glibc-locales-2.40')}/lib/locale/locale-archive`
    expect(codes(reading(archive, true), policy)).toEqual([])
    expect(codes(reading(archive, false), policy)).toEqual(['FOREIGN_FILE'])
    expect(codes(reading(`${archive}.sh`, true), policy)).toEqual(['FOREIGN_FILE'])
    expect(
      codes(reading('/tmp/glibc-locales-2.40/lib/locale/locale-archive', true), policy),
    ).toEqual(['FOREIGN_FILE'])
  })

  test('more than evidence can tell deny', () => {
    expect(codes((process) => (process.dataFiles.count = 1), foreign())).toEqual(['FOREIGN_FILE'])
  })

  test.each(['/', '../x', 'x/', '/etc/../x', '/etc//x', '/etc/.'])(
    '%s is no place in a policy',
    (path) => {
      expect(() => compile(`${policySource()}    foreignFiles: ['${path}']\n`)).toThrow(
        'foreignFiles[0]: expected the full path',
      )
    },
  )

  test('are no matter for a program in machine code', () => {
    const native = policySource([
      `      kind: interpreter
      executable: 'demo-node-*/bin/node'
      script: 'orders-*/lib/service.mjs'
      arguments: ['--jitless', '{script}']`,
      `      kind: native\n      executable: 'demo-node-*/lib/libc.so.6'`,
    ])
    const facts = factsWith((edited) => {
      const [process] = edited.processes
      const path = NODE.replace('bin/node', 'lib/libc.so.6')
      if (process === undefined || edited.unit.contract === null) return
      process.executable = { ...process.executable, path, sha256: sha256Hex('libc') }
      edited.unit.contract.executable = path
      edited.unit.contract.arguments = []
      process.argv = ['x']
      process.files = []
      reading('/var/lib/data')(process)
    })
    expect(codesOf(judge(facts, verified(`${native}    foreignFiles: []\n`)))).toEqual([])
  })
})

describe('namespaces', () => {
  const kinds = ['mnt', 'pid', 'net', 'ipc', 'uts', 'cgroup', 'time'] as const
  const own = (kind: (typeof kinds)[number]) => (process: Process) =>
    void (process.namespaces[kind] = '4026539999')

  test.each(kinds)('%s of its own denies, and passes where the role names it', (kind) => {
    expect(codes(own(kind))).toEqual(['NAMESPACE_NOT_ALLOWED'])
    expect(codes(own(kind), policyWith(`    allow: { namespaces: [${kind}] }`))).toEqual([])
    const others = kinds.filter((other) => other !== kind)
    expect(
      codes(own(kind), policyWith(`    allow: { namespaces: [user, ${others.join(', ')}] }`)),
    ).toEqual(['NAMESPACE_NOT_ALLOWED'])
  })

  test('user is named like the others', () => {
    const user = (process: Process): void => void (process.hostUserNamespace = false)
    expect(codes(user)).toEqual(['USER_NAMESPACE'])
    expect(codes(user, policyWith('    allow: { namespaces: [user] }'))).toEqual([])
  })

  test.each(['mnt', 'pid'] as const)(
    'a process in another %s namespace than the main one was put there',
    (kind) => {
      const policy = policyWith('    allow: { namespaces: [mnt, pid] }')
      const facts = factsWith(({ processes }) => {
        const [first] = processes
        if (first === undefined) return
        first.namespaces[kind] = '4026539999'
        // In the host's, as `nsenter` from outside leaves it.
        processes.push({
          ...structuredClone(first),
          pid: 101,
          namespaces: { ...first.namespaces, [kind]: runningHost().namespaces[kind] },
        })
      })
      expect(codesOf(judge(facts, policy))).toContain('NAMESPACE_DIFFERS')
    },
  )
})

describe('confinement', () => {
  const bounding = (process: Process): void =>
    void (process.capabilities.bounding = '0000000000000400')
  const role = (...lines: string[]) =>
    verified(policySource(['    signers: [ci]', `${lines.join('\n')}\n    signers: [ci]`]))

  test('a bounding set beyond the capabilities of the role denies', () => {
    expect(codes(bounding)).toEqual(['BOUNDING_SET'])
    expect(codes(bounding, role('    capabilities: [CAP_NET_BIND_SERVICE]'))).toEqual([])
    expect(codes(bounding, role('    boundingSet: [CAP_NET_BIND_SERVICE]'))).toEqual([])
    const narrow = role('    capabilities: [CAP_NET_BIND_SERVICE]', '    boundingSet: []')
    expect(codes(bounding, narrow)).toEqual(['BOUNDING_SET'])
  })

  test('a filter is demanded where the role says so', () => {
    const policy = role('    seccomp: true')
    expect(codes(() => undefined, policy)).toEqual(['SECCOMP_MISSING'])
    expect(codes((process) => (process.seccomp = 2), policy)).toEqual([])
  })
})

describe('a demand on hosts', () => {
  type Edited = Editable<HostFacts>
  type Change = (host: Edited) => unknown
  const require = (demand: string) =>
    verified(policySource(['roles:\n', `hosts:\n  demo: { require: { ${demand} } }\nroles:\n`]))
  const on = (change: Change, policy: ReturnType<typeof verified>): string[] => {
    const host = runningHost() as Edited
    change(host)
    return codesOf(evaluate(policy, passing(), context({ host: host as HostFacts })))
  }
  const SYSCTLS = [
    ['HOST_MODULES_LOADABLE', 'modulesDisabled: true', 'modulesDisabled', '0'],
    ['HOST_KEXEC', 'kexecDisabled: true', 'kexecLoadDisabled', '0'],
    ['HOST_PTRACE_SCOPE', 'ptraceScope: 1', 'ptraceScope', '0'],
    ['HOST_IO_URING', 'ioUringDisabled: 2', 'ioUringDisabled', '1'],
    ['HOST_MEMFD_NOEXEC', 'memfdNoexec: 1', 'memfdNoexec', '0'],
    ['HOST_BPF', 'unprivilegedBpfDisabled: 1', 'unprivilegedBpfDisabled', '0'],
    ['HOST_PERF_EVENT', 'perfEventParanoid: 2', 'perfEventParanoid', '1'],
    ['HOST_ASLR', 'randomizeVaSpace: 2', 'randomizeVaSpace', '1'],
  ] as const
  /** Short of the demand, and unknown. */
  type Row = [code: string, demand: string, short: Change, unknown: Change | null]
  const table: Row[] = [
    ['HOST_STORE_WRITABLE', 'storeReadOnly: true', (h) => (h.store.readOnly = false), null],
    ['HOST_PRELOAD', 'noPreloads: true', (h) => h.preloads.push('/etc/ld.so.preload'), null],
    [
      'HOST_CLOCK',
      'clockSynchronised: true',
      (h) => (h.clockSynchronised = false),
      (h) => (h.clockSynchronised = null),
    ],
    [
      'HOST_LOCKDOWN',
      'lockdown: integrity',
      (h) => (h.lockdown = 'none'),
      (h) => (h.lockdown = null),
    ],
    [
      'HOST_CORE_PATTERN',
      'noCorePipe: true',
      (h) => (h.sysctls.corePattern = '|/tmp/x'),
      (h) => (h.sysctls.corePattern = null),
    ],
    [
      'HOST_USERFAULTFD',
      'noUnprivilegedUserfaultfd: true',
      (h) => (h.sysctls.unprivilegedUserfaultfd = '1'),
      (h) => (h.sysctls.unprivilegedUserfaultfd = null),
    ],
    [
      'HOST_BINFMT_MISC',
      'binfmtMisc: [wine]',
      (h) => (h.binfmtMisc = ['wine', 'qemu']),
      (h) => (h.binfmtMisc = null),
    ],
    [
      'HOST_CMDLINE',
      `cmdlines: [${runningHost().cmdlineSha256}]`,
      (h) => (h.cmdlineSha256 = sha256Hex('init=/bin/sh')),
      (h) => (h.cmdlineSha256 = null),
    ],
    [
      'HOST_MODULES',
      `modules: [${runningHost().modules?.sha256}]`,
      (h) => (h.modules = { count: 2, sha256: sha256Hex('evil') }),
      (h) => (h.modules = null),
    ],
    ...SYSCTLS.flatMap(([code, demand, sysctl, less]): Row[] => [
      [code, demand, (h) => (h.sysctls[sysctl] = less), (h) => (h.sysctls[sysctl] = null)],
      [code, demand, (h) => (h.sysctls[sysctl] = 'x'), (h) => (h.sysctls[sysctl] = '')],
    ]),
  ]

  test.each(table)(
    '%s: %s is met or denies, and unknown is not met',
    (code, demand, short, unknown) => {
      expect(on(() => undefined, require(demand))).toEqual([])
      expect(on(short, require(demand))).toEqual([code])
      if (unknown !== null) expect(on(unknown, require(demand))).toEqual([code])
      // Nobody asked: nothing is denied, whatever the host is like.
      expect(on(short, verified())).toEqual([])
    },
  )

  test('of another class is no demand on this one', () => {
    const other = 'hosts:\n  other: { require: { storeReadOnly: true } }\nroles:\n'
    const policy = verified(policySource(['roles:\n', other]))
    expect(on((host) => (host.store.readOnly = false), policy)).toEqual([])
  })

  test('there is a test here for every code', () => {
    const tested = new Set([...table.map(([code]) => code), 'HOST_SYSTEM_NOT_APPROVED'])
    const hosts = DENIAL_CODES.filter((code) => /^HOST_(?!OBJECT)/.test(code))
    expect(hosts.toSorted()).toEqual([...tested].toSorted())
  })
})
