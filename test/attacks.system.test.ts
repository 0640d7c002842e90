// Attacks on live processes, from the kernel's word to the verdict: each is done for real, measured, and judged by
// a policy that has nothing against the same process without the attack.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readInstance } from '../packages/agent/src/measure/instance.ts'
import { Measurer } from '../packages/agent/src/measure/measurer.ts'
import type { Measurement } from '../packages/agent/src/measure/messages.ts'
import { sharedMemoryDevice } from '../packages/agent/src/peer.ts'
import { inPrivateRoot } from '../packages/agent/test/fixture/private-root.ts'
import {
  startUnit,
  until,
  type TestUnit,
  type UnitOptions,
} from '../packages/agent/test/fixture/unit.ts'
import { evaluate, type Facts, type VerifiedPolicy } from '../packages/policy/src/index.ts'
import {
  codesOf,
  context,
  passing,
  policySource,
  verified,
} from '../packages/policy/test/installation.ts'

const STORE_PATH = '/nix/store/11111111111111111111111111111111-attacked'
const BUSYBOX = `${STORE_PATH}/bin/busybox`
const DATA = `${STORE_PATH}/data`
const KOFFI = join(import.meta.dirname, '../node_modules/koffi/index.js')
const SLEEP = [BUSYBOX, 'sleep', '1000'] as const

/** What every attacking script begins with; x86-64 and arm64 number their system calls differently. */
const PRELUDE = `
const fs = require('node:fs')
const koffi = require(${JSON.stringify(KOFFI)})
const libc = koffi.load(null)
const syscall = libc.func('long syscall(long, ...)')
const mmap = libc.func('uintptr_t mmap(uintptr_t, size_t, int, int, int, long)')
const mprotect = libc.func('int mprotect(uintptr_t, size_t, int)')
const SYS = ${process.arch === 'arm64'} ? { memfd: 279, uffd: 282, bpf: 280, perf: 241, setup: 425, register: 427, unshare: 97 }
  : { memfd: 319, uffd: 323, bpf: 321, perf: 298, setup: 425, register: 427, unshare: 272 }
const [PRIVATE, SHARED, ANONYMOUS] = [2, 1, 32]
const memfd = (name) => Number(syscall(SYS.memfd, 'str', name, 'int', 0))
const must = (value) => { if (!(Number(value) >= 0)) { console.log('failed ' + koffi.errno()); process.exit(1) } return Number(value) }
const keep = setInterval(() => {}, 1000)
const ready = () => console.log('ready')
`

describe.runIf(inPrivateRoot())('an attack on a live process', () => {
  let directory: string
  let measurer: Measurer
  const NODE_SHA256 = createHash('sha256').update(readFileSync(process.execPath)).digest('hex')

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-attacks-'))
    mkdirSync(`${STORE_PATH}/bin`, { recursive: true })
    copyFileSync('/bin/busybox', BUSYBOX)
    writeFileSync(DATA, 'data\n'.repeat(2000))
    measurer = new Measurer({
      unitsDir: join(directory, 'units'),
      ociStateDirs: [],
      storeDir: '/nix/store',
      sharedMemoryDevice: sharedMemoryDevice(),
    })
  })
  afterAll(() => {
    rmSync(directory, { recursive: true })
    rmSync(STORE_PATH, { recursive: true })
  })

  const start = (options: Omit<UnitOptions, 'unitsDir' | 'name'>): Promise<TestUnit> =>
    startUnit({ name: 'orders', unitsDir: join(directory, 'units'), ...options })

  /** A script in Node without a JIT, once it has done what it does; undefined if this kernel refuses. */
  async function attack(script: string): Promise<TestUnit | undefined> {
    const unit = await start({
      command: [process.execPath, '--jitless', '-e', PRELUDE + script],
      stdio: 'pipe',
    })
    let said = ''
    unit.child.stdout?.on('data', (text: Buffer) => (said += text.toString()))
    unit.child.stderr?.on('data', (text: Buffer) => (said += text.toString()))
    await until(() => said.includes('\n'))
    if (said === 'ready\n') return unit
    await unit[Symbol.asyncDispose]()
    if (!said.startsWith('failed')) throw new Error(said)
    console.warn(`not staged, this kernel refuses it: ${script.trim().split('\n')[0]}: ${said}`)
    return undefined
  }

  const role = (...lines: string[]) => verified(`${policySource()}${lines.join('\n')}\n`)
  function judge(measurement: Measurement, pid: number, policy: VerifiedPolicy): string[] {
    const { unit, processes, host } = measurement
    const facts: Facts = { ...passing(), callerPid: pid, unit, processes }
    return codesOf(evaluate(policy, facts, context({ host })))
  }
  const codes = (unit: TestUnit, policy = verified()): string[] =>
    judge(measurer.measure(unit.instance()), unit.pid, policy)

  const READS_NOTHING = role('    foreignFiles: []')
  const allowing = (...kinds: string[]) =>
    role('    allow:', `      descriptors: [io-uring, ${kinds.join(', ')}]`)
  const jit = (more = '') =>
    role(
      '    allow:',
      `      jit: [{ runtime: ${NODE_SHA256}, maxRegions: 8, maxBytes: 65536${more} }]`,
    )

  /** Codes that these tests are about; the real programs here are of no closure. */
  const OURS =
    /^(DESCRIPTOR|STORE_WRITABLE|PROCESS_MEMORY|KERNEL_MEMORY|JIT|MEMFD|SHARED|FOREIGN|NAMESPACE|USER_N|SECCOMP|TEXT|ROOT_D)/
  const ours = (found: readonly string[]): string[] => found.filter((code) => OURS.test(code))

  test('none: Node 24, idle, is told with nothing but its rings', async () => {
    await using unit = (await attack('ready()'))!
    const [process0] = measurer.measure(unit.instance()).processes
    expect(process0!.descriptors.map(({ kind }) => kind)).toEqual(['io-uring'])
    expect(process0!.dataFiles).toEqual({ count: 0, files: [] })
    expect(ours(codes(unit))).toEqual([])
  })

  test.for([
    ['memfd', `must(memfd('x')); ready()`],
    ['userfaultfd', `must(syscall(SYS.uffd, 'int', 1)); ready()`],
    [
      'io-uring-files',
      `const ring = must(syscall(SYS.setup, 'unsigned int', 2, 'void *', Buffer.alloc(120)))
       const fds = Buffer.alloc(4); fds.writeInt32LE(must(memfd('hidden')))
       must(syscall(SYS.register, 'int', ring, 'unsigned int', 2, 'void *', fds, 'unsigned int', 1))
       fs.closeSync(fds.readInt32LE()); ready()`,
    ],
    [
      'bpf',
      `const map = Buffer.alloc(72); [2, 4, 4, 1].forEach((value, i) => map.writeUInt32LE(value, i * 4))
       must(syscall(SYS.bpf, 'int', 0, 'void *', map, 'unsigned int', 72)); ready()`,
    ],
    [
      'perf-event',
      `const attr = Buffer.alloc(112); [1, 112, 9].forEach((value, i) => attr.writeUInt32LE(value, i * 4))
       must(syscall(SYS.perf, 'void *', attr, 'int', 0, 'int', -1, 'int', -1, 'unsigned long', 0)); ready()`,
    ],
    [
      'fanotify',
      `const init = libc.func('int fanotify_init(unsigned int, unsigned int)'); must(init(0, 0)); ready()`,
    ],
    [
      'fuse',
      `let fd = -1; try { fd = fs.openSync('/dev/fuse', 'r+') } catch {}; must(fd); ready()`,
    ],
  ] as const)(
    'a descriptor for %s denies, unless the role allows that kind',
    async ([kind, script], { skip }) => {
      await using unit = await attack(script)
      if (unit === undefined) return skip('this kernel refuses it')
      expect(ours(codes(unit))).toEqual(['DESCRIPTOR_NOT_ALLOWED'])
      const [process0] = measurer.measure(unit.instance()).processes
      expect(process0!.descriptors.map((descriptor) => descriptor.kind)).toContain(kind)
      expect(ours(codes(unit, allowing(kind)))).toEqual([])
    },
  )

  test('a descriptor in the table of one thread alone is found', async () => {
    await using unit = (await attack(`
      const { Worker } = require('node:worker_threads')
      new Worker(${JSON.stringify(PRELUDE)} + \`
        must(syscall(SYS.unshare, 'int', 0x400)); must(memfd('hidden'));
        require('node:worker_threads').parentPort.postMessage('ready')\`, { eval: true })
        .on('message', ready)`))!
    const table = readFileSync(`/proc/${unit.pid}/status`, 'utf8')
    expect(table).not.toContain('hidden')
    expect(ours(codes(unit))).toEqual(['DESCRIPTOR_NOT_ALLOWED'])
  })

  test.each([
    ['open', `fs.openSync('${DATA}', 'r+'); ready()`],
    [
      'open through another name',
      `const { execFileSync } = require('node:child_process')
       execFileSync('mkdir', ['-p', '${STORE_PATH}.bound'])
       execFileSync('mount', ['--bind', '${STORE_PATH}', '${STORE_PATH}.bound'])
       fs.openSync('${STORE_PATH}.bound/data', 'a'); ready()`,
    ],
    [
      'mapped, its descriptor closed',
      `const fd = fs.openSync('${DATA}', 'r+'); must(mmap(0, 4096, 3, SHARED, fd, 0)); fs.closeSync(fd); ready()`,
    ],
  ])('a store file that is %s for writing denies', async (_how, script) => {
    try {
      await using unit = (await attack(script))!
      expect(ours(codes(unit))).toContain('STORE_WRITABLE')
    } finally {
      spawn('umount', [`${STORE_PATH}.bound`]).on('exit', () =>
        rmSync(`${STORE_PATH}.bound`, { recursive: true, force: true }),
      )
    }
  })

  test('a store file that is open for reading is data; a file elsewhere may be written', async () => {
    const state = join(directory, 'state')
    await using unit = (await attack(`
      fs.openSync('${DATA}', 'r'); fs.openSync('${state}', 'w+'); ready()`))!
    expect(ours(codes(unit))).toEqual([])
    expect(ours(codes(unit, READS_NOTHING))).toEqual(['FOREIGN_FILE'])
    const policy = role(`    foreignFiles: [${STORE_PATH}/]`)
    expect(ours(codes(unit, policy))).toEqual([])
    const [process0] = measurer.measure(unit.instance()).processes
    expect(process0!.dataFiles.files).toMatchObject([{ path: DATA, isStoreFile: true }])
  })

  test.each([
    ['of another process', `fs.openSync('/proc/' + process.ppid + '/mem', 'r'); ready()`],
    ['of its own', `fs.openSync('/proc/self/mem', 'r+'); ready()`],
  ])('the memory %s, open, denies', async (_whose, script) => {
    await using unit = (await attack(script))!
    expect(ours(codes(unit))).toEqual(['PROCESS_MEMORY'])
  })

  test.for([
    [
      'kcore',
      `let fd = -1; try { fd = fs.openSync('/proc/kcore', 'r') } catch {}; must(fd); ready()`,
    ],
    [
      'mem',
      `const { execFileSync } = require('node:child_process'); let fd = -1
       try { execFileSync('mknod', ['${'/tmp'}/bagcheck-mem', 'c', '1', '1']); fd = fs.openSync('/tmp/bagcheck-mem', 'r') } catch {}
       fs.rmSync('/tmp/bagcheck-mem', { force: true }); must(fd); ready()`,
    ],
    [
      'mem that is held by its name alone',
      `const { execFileSync } = require('node:child_process')
       execFileSync('mknod', ['/tmp/bagcheck-mem', 'c', '1', '1'])
       const O_PATH = 0o10000000; fs.openSync('/tmp/bagcheck-mem', O_PATH)
       fs.rmSync('/tmp/bagcheck-mem'); ready()`,
    ],
  ] as const)('the kernel’s memory as %s, open, denies', async ([, script], { skip }) => {
    await using unit = await attack(script)
    if (unit === undefined) return skip('this kernel does not give it away')
    expect(ours(codes(unit))).toEqual(['KERNEL_MEMORY'])
  })

  test.each([
    ['at once', `must(mmap(0, 4096, 7, PRIVATE | ANONYMOUS, -1, 0)); ready()`],
    [
      'first written, then executable',
      `const at = mmap(0, 4096, 3, PRIVATE | ANONYMOUS, -1, 0); must(mprotect(at, 4096, 5)); ready()`,
    ],
  ])(
    'executable memory made %s denies, unless it is that runtime’s allowance',
    async (_how, script) => {
      await using unit = (await attack(script))!
      expect(ours(codes(unit))).toEqual(['JIT_NOT_ALLOWED'])
      expect(ours(codes(unit, jit()))).toEqual([])
      const small = jit().policy // one region of one page is the least that this attack has
      expect(small.roles.size).toBe(1)
      const bound = role(
        '    allow:',
        `      jit: [{ runtime: ${NODE_SHA256}, maxRegions: 1, maxBytes: 4095 }]`,
      )
      expect(ours(codes(unit, bound))).toEqual(['JIT_BYTES'])
    },
  )

  test('more regions than the allowance has deny', async () => {
    await using unit = (await attack(`
      for (let i = 0; i < 9; i += 1) { must(mmap(0, 4096, 7, PRIVATE | ANONYMOUS, -1, 0)); must(mmap(0, 4096, 0, PRIVATE | ANONYMOUS, -1, 0)) }
      ready()`))!
    expect(ours(codes(unit, jit()))).toEqual(['JIT_REGIONS'])
  })

  test('an executable heap denies also where the runtime may make code', async () => {
    await using unit = (await attack(`
      const heap = /^([0-9a-f]+)-.*\\[heap\\]$/m.exec(fs.readFileSync('/proc/self/maps', 'utf8'))[1]
      must(mprotect(parseInt(heap, 16), 4096, 7)); ready()`))!
    expect(ours(codes(unit))).toEqual(['JIT_NOT_ALLOWED'])
    expect(ours(codes(unit, jit()))).toEqual(['JIT_NAME_NOT_ALLOWED'])
    expect(ours(codes(unit, jit(`, allowNames: ['[heap]']`)))).toEqual([])
  })

  test('code that takes the name of an allowed JIT region has its bounds, and in another program nothing', async ({
    skip,
  }) => {
    const named = (regions: number): string => `
      const prctl = libc.func('int prctl(int, unsigned long, uintptr_t, size_t, str)')
      for (let i = 0; i < ${regions}; i += 1) {
        const at = must(mmap(0, 4096, 7, PRIVATE | ANONYMOUS, -1, 0)); must(prctl(0x53564d41, 0, at, 4096, 'jit'))
        must(mmap(0, 4096, 0, PRIVATE | ANONYMOUS, -1, 0)) }
      ready()`
    await using few = await attack(named(1))
    if (few === undefined) return skip('this kernel names no anonymous memory')
    const allowed = jit(`, allowNames: ['[anon:jit]']`)
    expect(ours(codes(few))).toEqual(['JIT_NOT_ALLOWED'])
    expect(ours(codes(few, jit()))).toEqual(['JIT_NAME_NOT_ALLOWED'])
    expect(ours(codes(few, allowed))).toEqual([])
    const others = role(
      '    allow:',
      `      jit: [{ runtime: ${'0'.repeat(64)}, maxRegions: 8, maxBytes: 65536, allowNames: ['[anon:jit]'] }]`,
    )
    expect(ours(codes(few, others))).toEqual(['JIT_NOT_ALLOWED'])
    await using many = (await attack(named(9)))!
    expect(ours(codes(many, allowed))).toEqual(['JIT_REGIONS'])
  })

  test('a static program is whole until its code is written to', async () => {
    await using unit = await start({ command: [...SLEEP] })
    expect(ours(codes(unit))).toEqual([])
    const [process0] = measurer.measure(unit.instance()).processes
    expect(process0).toMatchObject({
      ...{ executable: { path: BUSYBOX, isStoreFile: true }, files: [] },
    })
    const maps = readFileSync(`/proc/${unit.pid}/maps`, 'utf8').split('\n')
    const text = maps.find((line) => / r-xp .*busybox$/.test(line)) ?? ''
    const [range = '', , offset = ''] = text.split(' ')
    const memory = openSync(`/proc/${unit.pid}/mem`, 'r+')
    const same = readFileSync(BUSYBOX).subarray(Number.parseInt(offset, 16)).subarray(0, 16)
    writeSync(memory, same, 0, same.length, Number.parseInt(range.split('-')[0] ?? '', 16))
    closeSync(memory)
    expect(ours(codes(unit))).toEqual(['TEXT_MODIFIED'])
  })

  test('code in a memfd denies, unless it is that runtime’s allowance by name', async () => {
    await using unit = (await attack(`
      const fd = must(memfd('doublemapper')); fs.ftruncateSync(fd, 8192)
      must(mmap(0, 8192, 3, SHARED, fd, 0)); must(mmap(0, 8192, 5, SHARED, fd, 0)); fs.closeSync(fd); ready()`))!
    expect(ours(codes(unit))).toEqual(['MEMFD_EXECUTABLE'])
    expect(ours(codes(unit, jit()))).toEqual(['MEMFD_EXECUTABLE'])
    expect(ours(codes(unit, jit(', allowMemfdNames: [doublemapper]')))).toEqual([])
  })

  test('code in shared memory denies whatever is allowed', async () => {
    await using unit = (await attack(`must(mmap(0, 4096, 7, SHARED | ANONYMOUS, -1, 0)); ready()`))!
    expect(ours(codes(unit, jit()))).toEqual(['SHARED_MEMORY_EXECUTABLE'])
  })

  test('a script from elsewhere that a shell runs, or maps, denies; one that the role names passes', async () => {
    const script = join(directory, 'evil.sh')
    writeFileSync(script, 'sleep 1000\n:\n')
    await using unit = await start({ command: [BUSYBOX, 'sh', script] })
    expect(ours(codes(unit, READS_NOTHING))).toContain('FOREIGN_FILE')
    const policy = role(`    foreignFiles: [${script}]`)
    expect(ours(codes(unit, policy))).toEqual([])
    await using mapping = (await attack(`
      const fd = fs.openSync('${script}', 'r'); must(mmap(0, 4096, 1, PRIVATE, fd, 0)); fs.closeSync(fd); ready()`))!
    expect(ours(codes(mapping, READS_NOTHING))).toEqual(['FOREIGN_FILE'])
  })

  test('ordinary interpreters read nothing foreign but locales', async () => {
    for (const command of [
      ['/usr/bin/perl', '-e', 'sleep 1000'],
      [BUSYBOX, 'sh', '-c', 'sleep 1000; :'],
      [process.execPath, '-e', 'setInterval(() => {}, 1000)'],
    ] as [string, ...string[]][]) {
      for (const [environment, foreignFiles] of [
        [{}, ''],
        [{ LANG: 'C.UTF-8' }, '/usr/lib/locale/, /usr/lib/x86_64-linux-gnu/gconv/'],
      ] as const) {
        await using unit = await start({ command, environment: { ...environment } })
        const found = codes(unit, role(`    foreignFiles: [${foreignFiles}]`))
        expect(found).not.toContain('FOREIGN_FILE')
        expect(found).not.toContain('DESCRIPTOR_NOT_ALLOWED')
      }
    }
  })

  test.each([
    ['mnt', '-m'],
    ['net', '-n'],
    ['ipc', '-i'],
    ['uts', '-u'],
    ['cgroup', '-C'],
  ])('a %s namespace of its own denies, unless the role names it', async (kind, flag) => {
    await using unit = await start({
      command: ['/usr/bin/unshare', flag, ...SLEEP],
      runs: BUSYBOX,
    })
    expect(ours(codes(unit))).toEqual(['NAMESPACE_NOT_ALLOWED'])
    expect(ours(codes(unit, role(`    allow: { namespaces: [${kind}] }`)))).toEqual([])
  })

  test.each([
    ['pid', '-p'],
    ['time', '-T'],
  ])('a child in a %s namespace of its own is told', async (kind, flag) => {
    await using unit = await start({
      command: ['/usr/bin/unshare', flag, '--fork', ...SLEEP],
    })
    await until(() => measurer.measure(unit.instance()).processes.length === 2)
    expect(ours(codes(unit))).toContain('NAMESPACE_NOT_ALLOWED')
    const named = ours(codes(unit, role(`    allow: { namespaces: [${kind}] }`)))
    expect(named).toEqual(kind === 'pid' ? ['NAMESPACE_DIFFERS'] : [])
  })

  test('a process of the host that was put into a unit is told', async () => {
    await using unit = await start({ command: ['/usr/bin/unshare', '-m', ...SLEEP], runs: BUSYBOX })
    const policy = role('    allow: { namespaces: [mnt] }')
    expect(ours(codes(unit, policy))).toEqual([])
    const put = `echo 0 > ${unit.directory}/cgroup.procs; exec ${SLEEP.join(' ')}`
    const intruder = spawn('/bin/sh', ['-c', put])
    await until(() => measurer.measure(unit.instance()).processes.length === 2)
    await until(() => readInstance(intruder.pid!).inode === unit.instance().inode)
    expect(ours(codes(unit, policy))).toEqual(['NAMESPACE_DIFFERS'])
  })

  test('a thread with a root of its own is refused', async () => {
    const root = join(directory, 'root')
    mkdirSync(root)
    await using unit = (await attack(`
      const { Worker } = require('node:worker_threads')
      new Worker(${JSON.stringify(PRELUDE)} + \`
        must(syscall(SYS.unshare, 'int', 0x200)); must(libc.func('int chroot(str)')('${root}'));
        require('node:worker_threads').parentPort.postMessage('ready')\`, { eval: true })
        .on('message', ready)`))!
    expect(measurer.answer({ id: 1, instance: unit.instance() })).toMatchObject({
      ok: false,
      code: 'THREADS_DIFFER',
    })
  })

  test('a bounding set denies unless it is as the role says, and so does a missing filter', async () => {
    const demanding = verified(
      policySource(['    signers: [ci]', '    seccomp: true\n    signers: [ci]']),
    )
    const judged = async (...wrapper: string[]): Promise<string[]> => {
      await using unit = await start({ command: [...SLEEP], wrapper, runs: BUSYBOX })
      return codes(unit, demanding)
    }
    expect(await judged()).toEqual(expect.arrayContaining(['BOUNDING_SET', 'SECCOMP_MISSING']))
    const bounded = await judged('setpriv', '--bounding-set=-all', '--inh-caps=-all')
    expect(bounded).not.toContain('BOUNDING_SET')
    await using filtered = (await attack(`
      const prctl = libc.func('int prctl(int, unsigned long, unsigned long, unsigned long, unsigned long)')
      must(prctl(38, 1, 0, 0, 0))
      const allow = Buffer.alloc(8); allow.writeUInt16LE(6, 0); allow.writeUInt32LE(0x7fff0000, 4)
      const program = Buffer.alloc(16); program.writeUInt16LE(1, 0); program.writeBigUInt64LE(koffi.address(allow), 8)
      const NR = ${process.arch === 'arm64'} ? 277 : 317
      must(syscall(NR, 'unsigned int', 1, 'unsigned int', 1, 'void *', program)); ready()`))!
    expect(codes(filtered, demanding)).not.toContain('SECCOMP_MISSING')
  })
})
