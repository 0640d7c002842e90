import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  closeSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import koffi from 'koffi'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { readInstance } from '../../src/measure/instance.ts'
import { parseMaps } from '../../src/measure/maps.ts'
import type { Measurement } from '../../src/measure/messages.ts'
import { Measurer } from '../../src/measure/measurer.ts'
import { readProcLink } from '../../src/measure/proc-file.ts'
import { sharedMemoryDevice } from '../../src/peer.ts'
import { inPrivateRoot } from '../fixture/private-root.ts'
import { startUnit, until, type UnitOptions } from '../fixture/unit.ts'

const STORE_PATH = '/nix/store/00000000000000000000000000000000-busybox'
const BUSYBOX = `${STORE_PATH}/bin/busybox`
const KOFFI = join(import.meta.dirname, '../../../../node_modules/koffi/index.js')
const SLEEP = [BUSYBOX, 'sleep', '1000'] as const

describe.runIf(inPrivateRoot())('a live unit', () => {
  let directory: string
  let unitsDir: string
  let measurer: Measurer
  const libc = koffi.load(null)

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-measure-'))
    unitsDir = join(directory, 'units')
    mkdirSync(`${STORE_PATH}/bin`, { recursive: true })
    copyFileSync('/bin/busybox', BUSYBOX)
    measurer = new Measurer({
      unitsDir,
      ociStateDirs: [],
      storeDir: '/nix/store',
      sharedMemoryDevice: sharedMemoryDevice(),
    })
  })
  afterAll(() => {
    rmSync(directory, { recursive: true })
    rmSync(STORE_PATH, { recursive: true })
  })

  const start = (options: Omit<UnitOptions, 'unitsDir' | 'name'>) =>
    startUnit({ name: 'orders', unitsDir, ...options })
  const measure = (unit: { instance(): ReturnType<typeof readInstance> }) =>
    measurer.measure(unit.instance())
  const only = async (options: Omit<UnitOptions, 'unitsDir' | 'name'>) => {
    await using unit = await start(options)
    const { processes } = measure(unit)
    expect(processes).toHaveLength(1)
    return processes[0]!
  }
  const node = (script: string, ...flags: string[]): [string, ...string[]] => [
    process.execPath,
    ...flags,
    '-e',
    script,
  ]

  test('is told with its contract, its program by object and its confinement', async () => {
    await using unit = await start({
      command: [...SLEEP],
      wrapper: ['setpriv', '--reuid=990', '--regid=991', '--clear-groups', '--no-new-privs'],
    })
    const { unit: facts, processes } = measure(unit)
    expect(facts).toEqual({
      launcher: 'bagcheck-exec',
      name: 'orders',
      cgroup: unit.cgroup,
      contract: {
        executable: BUSYBOX,
        arguments: ['sleep', '1000'],
        uid: 990,
        gid: 991,
        noNewPrivs: true,
        pid: unit.pid,
        startTicks: unit.instance().startTicks,
        intact: true,
      },
      container: null,
      service: null,
    })
    expect(processes).toEqual([
      expect.objectContaining({
        pid: unit.pid,
        uids: [990, 990, 990, 990],
        gids: [991, 991, 991, 991],
        isMainImage: true,
        executable: {
          path: BUSYBOX,
          sha256: createHash('sha256').update(readFileSync(BUSYBOX)).digest('hex'),
          device: expect.stringMatching(/^\d+:\d+$/),
          inode: expect.stringMatching(/^\d+$/),
          isStoreFile: true,
          unlinked: false,
        },
        files: [],
        executableMemory: [],
        descriptors: [],
        dataFiles: { count: 0, files: [] },
        modifiedTextBytes: 0,
        noNewPrivs: true,
        tracerPid: 0,
        hostUserNamespace: true,
        hostRoot: true,
        verifiedStoreMount: true,
        mountsBelowStore: [],
        argv: [BUSYBOX, 'sleep', '1000'],
      }),
    ])
  })

  test('with children is told whole, in whatever cgroup below they are', async () => {
    await using unit = await start({ command: [BUSYBOX, 'sh', '-c', 'sleep 1000 & sleep 1000; :'] })
    const inner = join(unit.directory, 'inner')
    mkdirSync(inner)
    const child = spawn('/bin/sh', ['-c', `echo 0 > ${inner}/cgroup.procs; exec /bin/sleep 1000`])
    await until(() => readFileSync(join(inner, 'cgroup.procs'), 'utf8') !== '')
    await setTimeout(50)
    const programs = measure(unit).processes.map(({ executable }) => executable.path)
    expect(programs.filter((path) => path === BUSYBOX).length).toBeGreaterThanOrEqual(2)
    expect(programs.some((path) => path.endsWith('/sleep'))).toBe(true)
    // A caller in the inner cgroup belongs to the same unit.
    expect(measurer.measure(readInstance(child.pid!)).unit.cgroup).toBe(unit.cgroup)
  })

  test('that forks is told as one program, until a fork executes something', async () => {
    const script = 'exec 3<&0; (read line <&3; exec sleep 1000) & read line; sleep 1000; :'
    await using unit = await start({ command: [BUSYBOX, 'sh', '-c', script], stdio: 'pipe' })
    const images = (): boolean[] => measure(unit).processes.map(({ isMainImage }) => isMainImage)
    await until(() => images().length === 2)
    expect(images()).toEqual([true, true])
    const child = readFileSync(join(unit.directory, 'cgroup.procs'), 'utf8')
      .split('\n')
      .find((pid) => pid !== '' && pid !== String(unit.pid))
    unit.child.stdin!.write('\n\n')
    await until(() => readFileSync(`/proc/${child}/cmdline`, 'utf8').startsWith('sleep'))
    const found = measure(unit).processes.find(({ pid }) => String(pid) === child)
    expect(found?.isMainImage).toBe(false)
  })

  test('identical bytes outside the store are not a store file', async () => {
    const copy = join(directory, 'busybox')
    copyFileSync(BUSYBOX, copy)
    const { executable } = await only({ command: [copy, 'sleep', '1000'] })
    expect(executable).toMatchObject({ path: copy, isStoreFile: false, unlinked: false })
    expect(executable.sha256).toBe(createHash('sha256').update(readFileSync(BUSYBOX)).digest('hex'))
  })

  test('a path in the store through a symlink is not that store file', async () => {
    const link = `${STORE_PATH}/link`
    execFileSync('ln', ['-s', 'bin', link])
    // The kernel reports where the file really is, whatever name it was started by.
    const { executable } = await only({
      command: [`${link}/busybox`, 'sleep', '1000'],
      runs: BUSYBOX,
    })
    expect(executable).toMatchObject({ path: BUSYBOX, isStoreFile: true })
  })

  test('a preloaded library is told, and the variable that asked for it', async () => {
    const library = join(directory, 'evil.so')
    const libm = /\S*\/libm\.so\.6/.exec(execFileSync('ldconfig', ['-p'], { encoding: 'utf8' }))![0]
    copyFileSync(libm, library)
    const facts = await only({
      command: ['/bin/sleep', '1000'],
      environment: { LD_PRELOAD: library, SECRET: 'value' },
    })
    expect(facts.files).toContainEqual(
      expect.objectContaining({ path: library, isStoreFile: false }),
    )
    expect(facts.environmentHints).toEqual(['LD_PRELOAD'])
    expect(JSON.stringify(facts)).not.toContain('value')
  })

  test('a program in a memfd is told as unlinked', async () => {
    const memfd = libc.func('int memfd_create(const char *, unsigned int)')('x', 0) as number
    writeSync(memfd, readFileSync('/bin/sleep'))
    const program = `/proc/${process.pid}/fd/${memfd}`
    const facts = await only({ command: [program, '1000'], runs: '/memfd:' })
    closeSync(memfd)
    expect(facts.executable).toMatchObject({ isStoreFile: false, unlinked: true })
    expect(facts.executable.path).toMatch(/^\/memfd:x/)
  })

  test('a deleted program is told as unlinked', async () => {
    const gone = join(directory, 'gone')
    copyFileSync('/bin/sleep', gone)
    await using unit = await start({ command: [gone, '1000'] })
    unlinkSync(gone)
    expect(measure(unit).processes[0]!.executable).toMatchObject({ unlinked: true })
  })

  test('a file whose name ends in "(deleted)" is not taken for one', async () => {
    const named = join(directory, 'named (deleted)')
    copyFileSync('/bin/sleep', named)
    const facts = await only({ command: [named, '1000'] })
    expect(facts.executable).toMatchObject({ unlinked: false, isStoreFile: false })
  })

  test('a program that was replaced in the store is no store file any more', async () => {
    const program = `${STORE_PATH}/bin/busybox-replaced`
    copyFileSync('/bin/busybox', program)
    await using unit = await start({ command: [program, 'sleep', '1000'] })
    expect(measure(unit).processes[0]!.executable.isStoreFile).toBe(true)
    copyFileSync('/bin/busybox', `${program}.new`)
    renameSync(`${program}.new`, program)
    expect(measure(unit).processes[0]!.executable).toMatchObject({ isStoreFile: false })
  })

  test('a file mounted over the store is told by its own bytes, with the mount', async () => {
    const evil = join(directory, 'evil')
    copyFileSync('/bin/busybox', evil)
    writeFileSync(evil, '\0', { flag: 'a' })
    const script = `mount --bind ${evil} ${BUSYBOX} && exec ${BUSYBOX} sleep 1000`
    const facts = await only({
      command: ['/usr/bin/unshare', '-m', 'sh', '-c', script],
      runs: BUSYBOX,
    })
    expect(facts.executable).toMatchObject({ path: BUSYBOX, isStoreFile: false })
    expect(facts.mountsBelowStore).toEqual([BUSYBOX])
    expect(facts.verifiedStoreMount).toBe(true)
  })

  test('a store on another mount is not the verified one', async () => {
    const script = `cp -r ${STORE_PATH} ${directory}/copy && mount -t tmpfs none /nix/store &&
      cp -r ${directory}/copy ${STORE_PATH} && exec ${BUSYBOX} sleep 1000`
    const facts = await only({
      command: ['/usr/bin/unshare', '-m', 'sh', '-c', script],
      runs: BUSYBOX,
    })
    expect(facts.executable).toMatchObject({ path: BUSYBOX, isStoreFile: false })
    expect(facts.verifiedStoreMount).toBe(false)
  })

  test('the same store bound from another directory is not the verified one', async () => {
    const script = `mkdir ${directory}/store && cp -r ${STORE_PATH} ${directory}/store/ &&
      mount --bind ${directory}/store /nix/store && exec ${BUSYBOX} sleep 1000`
    const facts = await only({
      command: ['/usr/bin/unshare', '-m', 'sh', '-c', script],
      runs: BUSYBOX,
    })
    expect(facts).toMatchObject({ verifiedStoreMount: false, hostRoot: true })
  })

  test('is told the same by a measurer in a mount namespace of its own, where the store is hidden', async () => {
    await using unit = await start({ command: [...SLEEP] })
    const fixture = join(import.meta.dirname, '../fixture/measure-child.ts')
    const tell = [process.execPath, '-C', '@bagcheck/source', fixture]
    const measureIn = (before: string): Measurement['processes'] => {
      const args = ['-m', 'sh', '-c', `${before} && exec "$@"`, 'sh', ...tell]
      const said = execFileSync('unshare', [...args, join(directory, 'sights'), `${unit.pid}`])
      return (JSON.parse(said.toString()) as Measurement).processes
    }
    const processes = measureIn('mount -t tmpfs none /nix/store')
    expect(processes).toEqual(measureIn('true'))
    expect(processes[0]).toMatchObject({
      executable: { path: BUSYBOX, isStoreFile: true },
      verifiedStoreMount: true,
      hostRoot: true,
      mountsBelowStore: [],
    })
  })

  test('another root directory and another user namespace are told', async () => {
    const root = join(directory, 'root')
    mkdirSync(join(root, 'bin'), { recursive: true })
    cpSync('/bin/busybox', join(root, 'bin/busybox'), { dereference: true })
    const chrooted = await only({
      command: ['/usr/sbin/chroot', root, '/bin/busybox', 'sleep', '1000'],
      runs: join(root, 'bin/busybox'),
    })
    expect(chrooted).toMatchObject({ hostRoot: false, verifiedStoreMount: false })
    const contained = await only({ command: ['/usr/bin/unshare', '-U', ...SLEEP], runs: BUSYBOX })
    expect(contained).toMatchObject({ hostUserNamespace: false, hostRoot: true })
  })

  test('executable memory of a JIT is counted, and is not there without one', async () => {
    const jit = await only({ command: node('setInterval(() => {}, 1000)') })
    expect(jit.executableMemory).toEqual([
      { kind: 'anonymous', name: '', regions: expect.any(Number), bytes: expect.any(Number) },
    ])
    const jitless = await only({ command: node('setInterval(() => {}, 1000)', '--jitless') })
    expect(jitless.executableMemory).toEqual([])
    expect(jitless.modifiedTextBytes).toBe(0)
  })

  test('a text page that was written to is counted, even with the same bytes', async () => {
    await using unit = await start({ command: [...SLEEP] })
    expect(measure(unit).processes[0]!.modifiedTextBytes).toBe(0)
    const maps = readFileSync(`/proc/${unit.pid}/maps`, 'utf8')
    const text = parseMaps(maps).executable.find(({ path }) => path === BUSYBOX)!
    const position = Number.parseInt(text.start, 16)
    const memory = openSync(`/proc/${unit.pid}/mem`, 'r+')
    writeSync(memory, readFileSync(BUSYBOX), Number.parseInt(text.offset, 16), 16, position)
    closeSync(memory)
    expect(measure(unit).processes[0]!.modifiedTextBytes).toBe(4096)
  })

  test('the vDSO is the kernel’s until somebody writes to it', async () => {
    await using unit = await start({ command: [...SLEEP] })
    const maps = readFileSync(`/proc/${unit.pid}/maps`, 'utf8')
    const vdso = parseMaps(maps).executable.find(({ path }) => path === '[vdso]')!
    const memory = openSync(`/proc/${unit.pid}/mem`, 'r+')
    writeSync(memory, Buffer.from([0x90]), 0, 1, Number(BigInt(`0x${vdso.start}`)) + 1)
    closeSync(memory)
    expect(measure(unit).processes[0]!.modifiedTextBytes).toBe(4096)
  })

  test('a tracer is told', async () => {
    await using unit = await start({ command: [...SLEEP] })
    const ptrace = libc.func('long ptrace(long, int, void *, void *)')
    const PTRACE_SEIZE = 0x4206
    expect(ptrace(PTRACE_SEIZE, unit.pid, null, null)).toBe(0)
    expect(measure(unit).processes[0]!.tracerPid).toBe(process.pid)
  })

  test('a contract is broken by an exec of the same program in the same process', async () => {
    await using unit = await start({
      command: [BUSYBOX, 'sh', '-c', `read line; exec ${BUSYBOX} sleep 1000`],
      stdio: 'pipe',
    })
    expect(measure(unit).unit.contract?.intact).toBe(true)
    const before = unit.instance()
    unit.child.stdin!.write('\n')
    const launched = [...SLEEP, ''].join('\0')
    await until(() => readFileSync(`/proc/${unit.pid}/cmdline`, 'utf8') === launched)
    const after = measure(unit)
    expect(after.unit.contract).toMatchObject({ pid: unit.pid, intact: false })
    // Whoever connected before the exec is not who runs now.
    expect(measurer.answer({ id: 1, instance: before })).toMatchObject({
      ok: false,
      code: 'PROCESS_MOVED',
    })
  })

  test('a pid that belongs to another process now is not the instance', async () => {
    await using unit = await start({ command: [...SLEEP] })
    const reused = { ...unit.instance(), startTicks: unit.instance().startTicks - 1 }
    expect(measurer.answer({ id: 1, instance: reused })).toMatchObject({ code: 'PROCESS_MOVED' })
  })

  test('a process whose first thread is gone cannot hide behind it', async () => {
    const exit = `const { syscall } = { syscall: require(${JSON.stringify(KOFFI)}).load(null).func('long syscall(long, ...)') };
      setTimeout(() => syscall(60, 'int', 0), 100)`
    await using unit = await start({ command: node(exit) })
    const instance = unit.instance()
    await until(() => /^State:\tZ/m.test(readFileSync(`/proc/${unit.pid}/status`, 'utf8')))
    expect(measurer.answer({ id: 1, instance })).toMatchObject({ ok: false })
    // Also when a sibling asks.
    const sibling = spawn('/bin/sh', [
      '-c',
      `echo 0 > ${unit.directory}/cgroup.procs; exec ${BUSYBOX} sleep 1000`,
    ])
    await until(() => readProcLink(`/proc/${sibling.pid}/exe`) === BUSYBOX)
    expect(measurer.answer({ id: 1, instance: readInstance(sibling.pid!) })).toMatchObject({
      ok: false,
      code: 'PROCESS_HIDDEN',
    })
  })

  test('a zombie is not a process', async () => {
    await using unit = await start({ command: [BUSYBOX, 'sh', '-c', 'sleep 0 & exec sleep 1000'] })
    await until(() => readFileSync(join(unit.directory, 'cgroup.procs'), 'utf8').includes('\n'))
    await setTimeout(100)
    expect(measure(unit).processes.map(({ pid }) => pid)).toEqual([unit.pid])
  })

  test('threads of different users are refused', async () => {
    const script = `const syscall = require(${JSON.stringify(KOFFI)}).load(null).func('long syscall(long, ...)');
      syscall(117, 'int', 1000, 'int', 1000, 'int', 1000); setInterval(() => {}, 1000)`
    await using unit = await start({ command: node(script) })
    await until(() => /^Uid:\t1000/m.test(readFileSync(`/proc/${unit.pid}/status`, 'utf8')))
    expect(measurer.answer({ id: 1, instance: unit.instance() })).toMatchObject({
      code: 'THREADS_DIFFER',
    })
  })

  test('more processes than can be told are refused', async () => {
    const script = 'i=0; while [ $i -lt 260 ]; do sleep 1000 & i=$((i+1)); done; wait'
    await using unit = await start({ command: [BUSYBOX, 'sh', '-c', script] })
    await until(
      () => readFileSync(join(unit.directory, 'cgroup.procs'), 'utf8').split('\n').length > 260,
    )
    expect(measurer.answer({ id: 1, instance: unit.instance() })).toMatchObject({
      code: 'MEASUREMENT_LIMIT',
    })
  })

  test('a record of another cgroup, or that others may write, makes no unit', async () => {
    await using unit = await start({ command: [...SLEEP] })
    const record = JSON.parse(readFileSync(unit.recordFile, 'utf8')) as Record<string, unknown>
    writeFileSync(unit.recordFile, JSON.stringify({ ...record, cgroupInode: '1' }))
    expect(measure(unit).unit).toMatchObject({ launcher: 'none', contract: null })
    writeFileSync(unit.recordFile, JSON.stringify(record))
    expect(measure(unit).unit.launcher).toBe('bagcheck-exec')
    for (const [command, what] of [
      ['chmod', '666'],
      ['chown', '990'],
    ] as const) {
      execFileSync(command, [what, unit.recordFile])
      expect(measurer.answer({ id: 1, instance: unit.instance() })).toMatchObject({
        code: 'UNIT_RECORD',
      })
      execFileSync('chmod', ['600', unit.recordFile])
    }
  })

  test('no unit at all is told as none, with the caller alone', () => {
    const { unit, processes } = measurer.measure(readInstance(process.ppid))
    expect(unit).toMatchObject({ launcher: 'none', name: '', contract: null })
    expect(processes.map(({ pid }) => pid)).toEqual([process.ppid])
  })

  test('measuring an ordinary process costs what it costs', async () => {
    const cases = [
      ['its libraries read each time', ['/bin/sleep', '1000']],
      ['in the store', SLEEP],
    ] as const
    for (const [title, command] of cases) {
      await using unit = await start({ command: [...command] })
      const instance = unit.instance()
      measurer.measure(instance)
      const times = Array.from({ length: 50 }, () => {
        const began = performance.now()
        measurer.measure(instance)
        return performance.now() - began
      })
      const [p50] = times.toSorted((a, b) => a - b).slice(25)
      console.log(`50 warm measurements, ${title}: p50 ${p50?.toFixed(2)} ms`)
    }
  })
})
