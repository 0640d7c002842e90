// What one user's units can take from the measurements of others by the questions that are slow: the content of a
// container's own store, which may be as large as it likes, and lie where nothing answers.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test, type TestContext } from 'vitest'
import type { StorePath } from '@bagcheck/nix'
import { DEFAULT_POOL_LIMITS, FirstSights, MeasurerPool } from '../../src/index.ts'
import { parseMountinfo } from '../../src/measure/mounts.ts'
import { readStore } from '../../src/measure/surroundings.ts'
import { sharedMemoryDevice } from '../../src/peer.ts'
import { inPrivateRoot } from '../fixture/private-root.ts'
import { startUnit, until, type TestUnit } from '../fixture/unit.ts'

const FUSE_SERVER = join(import.meta.dirname, '../fixture/fuse-server.ts')
const [ONE, OTHER] = [5001, 5002]

describe.runIf(inPrivateRoot())('a container that brings its own store', () => {
  let directory: string
  let storeDir: string
  const units: TestUnit[] = []

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-fairness-'))
    storeDir = join(directory, 'store')
    mkdirSync(storeDir)
  })
  afterEach(async () => {
    for (const unit of units.splice(0)) await unit[Symbol.asyncDispose]()
    rmSync(directory, { recursive: true })
  })

  const start = async (name: string, uid: number): Promise<TestUnit> => {
    const wrapper = ['setpriv', '--reuid', String(uid), '--regid', String(uid), '--clear-groups']
    const unit = await startUnit({
      ...{ name, wrapper, unitsDir: join(directory, 'units'), command: ['/bin/sleep', '1000'] },
    })
    units.push(unit)
    return unit
  }
  const poolWith = (limits: Partial<typeof DEFAULT_POOL_LIMITS>): MeasurerPool =>
    new MeasurerPool(
      {
        ...{ unitsDir: join(directory, 'units'), ociStateDirs: [], storeDir },
        sharedMemoryDevice: sharedMemoryDevice(),
      },
      new FirstSights({ bootId: 'b', text: undefined, save: () => undefined }, () => true),
      { ...DEFAULT_POOL_LIMITS, ...limits },
    )
  /** Asks for a file of the store, as the front does for a container's. */
  const hasher = (pool: MeasurerPool): ((unit: TestUnit) => ReturnType<MeasurerPool['hash']>) => {
    const mounts = parseMountinfo(readFileSync('/proc/self/mountinfo', 'utf8'))
    const found = readStore(process.pid, storeDir, mounts)
    if (found === null) throw new Error('expected a store')
    const { mount: _mount, ...store } = found
    const paths = [join(storeDir, 'file') as StorePath]
    return (unit) => pool.hash(unit.instance(), { store, paths, maxAgeMs: 0, owner: 0 })
  }

  test('asks for its hashes without end, and others are measured after one of them', async () => {
    writeFileSync(join(storeDir, 'file'), Buffer.alloc(64 * 1024 * 1024))
    const [greedy, other] = [await start('greedy', ONE), await start('other', OTHER)]
    await using pool = poolWith({ threads: 1, maxWaitingOfUnit: 8 })
    const hash = hasher(pool)
    const stopping = new AbortController()
    const refused = new Set<unknown>()
    let hashed = 0
    const asking = Array.from({ length: 16 }, async () => {
      while (!stopping.signal.aborted) {
        await hash(greedy).then(
          () => (hashed += 1),
          (error: { code?: unknown }) => refused.add(error.code),
        )
        await new Promise(setImmediate)
      }
    })
    await until(() => hashed > 0)
    for (let i = 0; i < 5; i += 1) {
      const before = hashed
      expect((await pool.measure(other.instance())).unit.name).toBe('other')
      // The one that was under way, and the one that had its turn before.
      expect(hashed - before).toBeLessThanOrEqual(2)
    }
    stopping.abort()
    await Promise.all(asking)
    expect([...refused]).toEqual(['MEASURER_BUSY'])
  })

  test('hangs with its store, and takes two threads of all that there are, and nobody else’s turn', async (context: TestContext) => {
    if (!existsSync('/dev/fuse')) return context.skip('this kernel has no /dev/fuse')
    const stop = join(directory, 'stop')
    const server: ChildProcess = spawn(
      process.execPath,
      ['-C', '@bagcheck/source', FUSE_SERVER, storeDir, '/bin/sleep', stop],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    let said = ''
    server.stdout?.on('data', (data: Buffer) => (said += data.toString()))
    await until(() => said === 'mounted\n', 30_000)
    const mine: TestUnit[] = []
    for (const name of ['a', 'b', 'c', 'd']) mine.push(await start(name, ONE))
    const [a, b, c, d] = mine as [TestUnit, TestUnit, TestUnit, TestUnit]
    const other = await start('other', OTHER)
    await using pool = poolWith({ threads: 2, timeoutMs: 3000 })
    const hash = hasher(pool)
    writeFileSync(stop, '')
    try {
      const codes = await Promise.all(
        [a, b, c].map((unit) => hash(unit).catch(({ code }: { code: string }) => code)),
      )
      // The third waited meanwhile, and is not given a thread to lose.
      expect(codes).toEqual(['MEASUREMENT_TIMEOUT', 'MEASUREMENT_TIMEOUT', 'MEASURER_BUSY'])
      await expect(hash(d)).rejects.toMatchObject({
        code: 'MEASURER_BUSY',
        message: `2 measurements of user ${ONE} hang`,
      })
      await expect(pool.measure(d.instance())).rejects.toMatchObject({ code: 'MEASURER_BUSY' })
      expect((await pool.measure(other.instance())).unit.name).toBe('other')
    } finally {
      server.kill('SIGKILL')
      spawnSync('umount', ['-l', storeDir])
    }
    // The kernel answers for the server that is gone, the threads end, and the user may be measured again.
    let name = ''
    const again = async (): Promise<string> =>
      pool.measure(d.instance()).then(
        ({ unit }) => unit.name,
        () => '',
      )
    for (let attempt = 0; attempt < 200 && name === ''; attempt += 1) {
      name = await again()
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    expect(name).toBe('d')
  })
})
