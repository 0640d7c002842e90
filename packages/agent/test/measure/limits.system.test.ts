// Units that are too much, and units that make whoever looks wait: each is an error with a reason, and the thread
// that measured goes on with the next.
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process'
import {
  existsSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, type TestContext } from 'vitest'
import { FirstSights, MeasurerPool } from '../../src/index.ts'
import { sharedMemoryDevice } from '../../src/peer.ts'
import { inPrivateRoot } from '../fixture/private-root.ts'
import { startUnit, until, type TestUnit, type UnitOptions } from '../fixture/unit.ts'

const KOFFI = join(import.meta.dirname, '../../../../node_modules/koffi/index.js')
const FUSE_SERVER = join(import.meta.dirname, '../fixture/fuse-server.ts')

describe.runIf(inPrivateRoot())('measuring', () => {
  let directory: string
  let pool: MeasurerPool

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-limits-'))
    const unitsDir = join(directory, 'units')
    const sights = new FirstSights(
      { bootId: 'b', text: undefined, save: () => undefined },
      () => true,
    )
    pool = new MeasurerPool(
      {
        ...{ unitsDir, ociStateDirs: [], storeDir: '/nix/store' },
        sharedMemoryDevice: sharedMemoryDevice(),
      },
      sights,
    )
  })
  afterAll(async () => {
    await pool[Symbol.asyncDispose]()
    rmSync(directory, { recursive: true })
  })

  const start = (options: Omit<UnitOptions, 'unitsDir' | 'name'>): Promise<TestUnit> =>
    startUnit({ name: 'orders', unitsDir: join(directory, 'units'), ...options })

  /** A Node that calls the kernel, once it says that it is ready. */
  async function script(text: string): Promise<TestUnit> {
    const prelude = `const koffi = require(${JSON.stringify(KOFFI)}), fs = require('node:fs')
      const libc = koffi.load(null)
      const mmap = libc.func('uintptr_t mmap(uintptr_t, size_t, int, int, int, long)')
      const mprotect = libc.func('int mprotect(uintptr_t, size_t, int)')
      const keep = setInterval(() => {}, 1000)\n`
    const unit = await start({
      command: [process.execPath, '--jitless', '-e', prelude + text],
      stdio: 'pipe',
    })
    let said = ''
    unit.child.stdout?.on('data', (data: Buffer) => (said += data.toString()))
    unit.child.stderr?.on('data', (data: Buffer) => (said += data.toString()))
    await until(() => said.includes('\n'))
    if (said !== 'ready\n') throw new Error(said)
    return unit
  }

  /** Every other page of `count` is made another mapping. */
  const mappings = (count: number) => `
    const at = mmap(0, ${count} * 4096, 0, 0x4022, -1, 0)
    for (let i = 0; i < ${count}; i += 2) if (mprotect(at + i * 4096, 4096, 1) !== 0) throw new Error('errno ' + koffi.errno())
    console.log('ready')`

  test('a process of 50,000 mappings is refused, one of 20,000 is measured', async () => {
    {
      await using unit = await script(mappings(51_000))
      await expect(pool.measure(unit.instance())).rejects.toMatchObject({
        code: 'MEASUREMENT_LIMIT',
        message: expect.stringContaining('mappings'),
      })
    }
    await using unit = await script(mappings(20_000))
    const { processes } = await pool.measure(unit.instance())
    expect(readFileSync(`/proc/${unit.pid}/maps`, 'utf8').split('\n').length).toBeGreaterThan(
      20_000,
    )
    expect(processes).toHaveLength(1)
  })

  test('a unit of a thousand processes is refused', async () => {
    const loop = 'i=0; while [ $i -lt 1000 ]; do sleep 1000 & i=$((i+1)); done; wait'
    await using unit = await start({ command: ['/bin/busybox', 'sh', '-c', loop] })
    const count = (): number =>
      readFileSync(join(unit.directory, 'cgroup.procs'), 'utf8').split('\n').length
    await until(() => count() > 1000, 60_000)
    await expect(pool.measure(unit.instance())).rejects.toMatchObject({
      code: 'MEASUREMENT_LIMIT',
      message: expect.stringContaining('processes'),
    })
  })

  test('a unit with more descriptors than can be looked at is refused, one with many is measured', async (context: TestContext) => {
    const hard = Number(execFileSync('/bin/sh', ['-c', 'ulimit -Hn | sed s/unlimited/1000000/']))
    if (hard < 18_100) return context.skip(`processes here have ${hard} descriptors at most`)
    const holding = async (processes: number): Promise<TestUnit> => {
      const perl = `open($f[$_], ">", "/dev/null") or die for 1..18000;
        for (2..$ARGV[0]) { fork or last } open(F, ">>", $ARGV[1]); syswrite(F, "."); sleep`
      const ready = join(directory, `ready-${processes}`)
      const unit = await start({
        command: ['/usr/bin/perl', '-e', perl, `${processes}`, ready],
        wrapper: ['/bin/sh', '-c', 'ulimit -n 18100 && exec "$@"', 'sh'],
      })
      await until(() => readFileSync(ready, 'utf8').length === processes, 60_000)
      return unit
    }
    {
      await using unit = await holding(12)
      await expect(pool.measure(unit.instance())).rejects.toMatchObject({
        code: 'MEASUREMENT_LIMIT',
        // On a machine that is busy with other things the time is up first.
        message: expect.stringMatching(/descriptors|within/),
      })
    }
    await using unit = await holding(1)
    expect((await pool.measure(unit.instance())).processes).toHaveLength(1)
  })

  test('a mapped file that is too much to hash is refused', async () => {
    const large = join(directory, 'large')
    ftruncateSync(openSync(large, 'w'), 5 * 1024 ** 3)
    await using unit = await script(`
      const fd = fs.openSync('${large}', 'r'); mmap(0, 4096, 5, 2, fd, 0); console.log('ready')`)
    await expect(pool.measure(unit.instance())).rejects.toMatchObject({
      code: 'MEASUREMENT_LIMIT',
      message: expect.stringContaining('too much to hash'),
    })
  })

  test('arguments that a process took away are not waited for', async (context: TestContext) => {
    const uffd = `
      const syscall = libc.func('long syscall(long, ...)'), ioctl = libc.func('int ioctl(int, unsigned long, void *)')
      const madvise = libc.func('int madvise(uintptr_t, size_t, int)')
      const fd = Number(syscall(${process.arch === 'arm64' ? 282 : 323}, 'int', 1))
      if (fd < 0) { console.log('refused'); process.exit() }
      const api = Buffer.alloc(24); api.writeBigUInt64LE(0xaan, 0)
      if (ioctl(fd, 0xc018aa3f, api) !== 0) throw new Error('api ' + koffi.errno())
      const at = Number(fs.readFileSync('/proc/self/stat', 'utf8').split(') ')[1].split(' ')[45])
      const page = Math.floor(at / 4096) * 4096
      const range = Buffer.alloc(32); [page, 4096, 1].forEach((value, i) => range.writeBigUInt64LE(BigInt(value), i * 8))
      if (ioctl(fd, 0xc020aa00, range) !== 0) throw new Error('register ' + koffi.errno())
      process.stdout.write('ready\\n', () => { if (madvise(page, 4096, 4) !== 0) throw new Error('madvise') })`
    let unit: TestUnit
    try {
      unit = await script(uffd)
    } catch (error) {
      if (!String(error).includes('refused')) throw error
      return context.skip('this kernel has no userfaultfd')
    }
    await using _unit = unit
    await until(() => true, 200)
    await new Promise((resolve) => setTimeout(resolve, 200))
    await expect(pool.measure(unit.instance())).rejects.toMatchObject({ code: 'MEMORY_UNREADABLE' })
    // The same threads go on.
    await using other = await start({ command: ['/bin/sleep', '1000'] })
    expect((await pool.measure(other.instance())).processes).toHaveLength(1)
  })

  describe('a file system that never answers', () => {
    let server: ChildProcess | undefined
    const mountPoint = (): string => join(directory, 'hung')
    const stop = (): string => join(directory, 'stop')

    async function serve(context: TestContext): Promise<void> {
      if (!existsSync('/dev/fuse')) return context.skip('this kernel has no /dev/fuse')
      mkdirSync(mountPoint(), { recursive: true })
      rmSync(stop(), { force: true })
      server = spawn(
        process.execPath,
        ['-C', '@bagcheck/source', FUSE_SERVER, mountPoint(), '/bin/sleep', stop()],
        { stdio: ['ignore', 'pipe', 'inherit'] },
      )
      let said = ''
      server.stdout?.on('data', (data: Buffer) => (said += data.toString()))
      await until(() => said === 'mounted\n', 30_000)
    }
    /** Before the unit ends: what waits for an answer cannot die. The kernel then answers, with errors. */
    const end = (): void => {
      server?.kill('SIGKILL')
      spawnSync('umount', ['-l', mountPoint()])
    }

    test('under the program of a unit is refused with its name', async (context: TestContext) => {
      await serve(context)
      await using unit = await start({ command: [join(mountPoint(), 'file'), '1000'] })
      try {
        writeFileSync(stop(), '')
        await expect(pool.measure(unit.instance())).rejects.toMatchObject({
          code: 'FILE_UNREADABLE',
          message: expect.stringContaining('saw fuse'),
        })
      } finally {
        end()
      }
    })

    test('under a file that is open or mapped is told and not asked', async (context: TestContext) => {
      await serve(context)
      const file = join(mountPoint(), 'file')
      await using unit = await script(`
        const fd = fs.openSync('${file}', 'r'); mmap(0, 4096, 1, 2, fd, 0); console.log('ready')`)
      try {
        writeFileSync(stop(), '')
        const { processes } = await pool.measure(unit.instance())
        expect(processes[0]?.dataFiles.files).toEqual([
          { path: file, device: expect.any(String), inode: '2', isStoreFile: false },
        ])
      } finally {
        end()
      }
    })
  })
})
