import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { DEFAULT_POOL_LIMITS, FirstSights, MeasurerPool } from '../../src/index.ts'
import { AgentError } from '../../src/error.ts'
import { ANSWER_TIMEOUT_MS } from '../../src/front/measurer-client.ts'
import { awaitStart } from '../../src/front/await-start.ts'
import { readInstance } from '../../src/measure/instance.ts'
import { readProcLink } from '../../src/measure/proc-file.ts'
import { sharedMemoryDevice } from '../../src/peer.ts'
import { inPrivateRoot } from '../fixture/private-root.ts'
import { startUnit, until } from '../fixture/unit.ts'

const sights = (): FirstSights =>
  new FirstSights({ bootId: 'b', text: undefined, save: () => undefined }, () => true)

describe.runIf(inPrivateRoot())('the measuring threads', () => {
  let child: ChildProcess
  const options = {
    unitsDir: '/nonexistent',
    ociStateDirs: [],
    storeDir: '/nix/store',
    sharedMemoryDevice: sharedMemoryDevice(),
  }
  beforeAll(async () => {
    child = spawn('/bin/sleep', ['1000'])
    await until(() => readProcLink(`/proc/${child.pid}/exe`).endsWith('/sleep'))
  })
  afterAll(() => child.kill('SIGKILL'))

  test('answer many requests at once, each with its own facts', async () => {
    await using pool = new MeasurerPool(options, sights())
    const instance = readInstance(child.pid!)
    const moved = { ...instance, startTicks: instance.startTicks + 1 }
    const answers = await Promise.allSettled(
      Array.from({ length: 40 }, (_, index) => pool.measure(index % 2 === 0 ? instance : moved)),
    )
    answers.forEach((answer, index) => {
      if (index % 2 === 0) expect(answer.status).toBe('fulfilled')
      else expect(answer).toMatchObject({ reason: { code: 'PROCESS_MOVED' } })
    })
  })

  test('are one while nobody waits for long, more when somebody does, and one again after a while', async () => {
    const unitsDir = join(mkdtempSync(join(tmpdir(), 'bagcheck-pool-')), 'units')
    const command = ['/bin/sleep', '1000'] as const
    await using a = await startUnit({ name: 'a', unitsDir, command: [...command] })
    await using b = await startUnit({ name: 'b', unitsDir, command: [...command] })
    const workers = (): number =>
      readdirSync('/proc/self/task').filter((tid) => {
        try {
          return readFileSync(`/proc/self/task/${tid}/comm`, 'utf8') === 'measurer\n'
        } catch {
          return false // it has just ended
        }
      }).length
    const before = workers()
    const both = (pool: MeasurerPool): Promise<unknown> =>
      Promise.all([a, b].map((unit) => pool.measure(unit.instance())))
    {
      const limits = { ...DEFAULT_POOL_LIMITS, patienceMs: 10_000 }
      await using pool = new MeasurerPool({ ...options, unitsDir }, sights(), limits)
      await both(pool)
      expect(workers()).toBe(before + 1)
    }
    const limits = { ...DEFAULT_POOL_LIMITS, patienceMs: 0, idleMs: 300 }
    await using pool = new MeasurerPool({ ...options, unitsDir }, sights(), limits)
    await both(pool)
    expect(workers()).toBe(before + 2)
    await until(() => workers() === before + 1)
    await both(pool) // the one that stayed answers, and another comes again
    rmSync(join(unitsDir, '..'), { recursive: true })
  })

  test('that do not answer in time are given up, and others take their place', async () => {
    // No thread starts within a millisecond.
    await using pool = new MeasurerPool(options, sights(), { ...DEFAULT_POOL_LIMITS, timeoutMs: 1 })
    const instance = readInstance(child.pid!)
    for (let i = 0; i < 4; i += 1)
      await expect(pool.measure(instance)).rejects.toMatchObject({ code: 'MEASUREMENT_TIMEOUT' })
  })

  test('are refused to more than can wait', async () => {
    await using pool = new MeasurerPool(options, sights(), {
      ...DEFAULT_POOL_LIMITS,
      threads: 1,
      maxWaiting: 2,
    })
    const instance = readInstance(child.pid!)
    const answers = await Promise.allSettled(
      Array.from({ length: 5 }, () => pool.measure(instance)),
    )
    expect(answers.map(({ status }) => status)).toEqual([
      'fulfilled',
      'fulfilled',
      'fulfilled',
      'rejected',
      'rejected',
    ])
    expect(answers[4]).toMatchObject({ reason: { code: 'MEASURER_BUSY' } })
  })

  test('keep nobody waiting for longer than its front waits for an answer', async () => {
    const other = spawn('/bin/sleep', ['1000'])
    await until(() => readProcLink(`/proc/${other.pid}/exe`).endsWith('/sleep'))
    const limits = { ...DEFAULT_POOL_LIMITS, maxWaitMs: 1 }
    await using pool = new MeasurerPool(options, sights(), limits)
    const [first, second] = await Promise.allSettled(
      [child, other].map(({ pid }) => pool.measure(readInstance(pid!))),
    )
    expect(first).toMatchObject({ status: 'fulfilled' })
    expect(second).toMatchObject({ reason: { code: 'MEASURER_BUSY' } })
    other.kill('SIGKILL')
    const { timeoutMs, maxWaitMs } = DEFAULT_POOL_LIMITS
    expect(timeoutMs + maxWaitMs).toBeLessThan(ANSWER_TIMEOUT_MS)
    expect((await pool.measure(readInstance(child.pid!))).processes).toHaveLength(1)
  })

  test('measure a unit once for all that asked before it began, and again for who asks later', async () => {
    const unitsDir = join(mkdtempSync(join(tmpdir(), 'bagcheck-pool-')), 'units')
    await using unit = await startUnit({ name: 'asks', unitsDir, command: ['/bin/sleep', '1000'] })
    await using pool = new MeasurerPool({ ...options, unitsDir }, sights())
    const instance = unit.instance()
    const answers = await Promise.all(Array.from({ length: 30 }, () => pool.measure(instance)))
    // The first alone; the others, who asked while that was under way, together.
    expect(new Set(answers).size).toBe(2)
    expect(answers[1]).toBe(answers[29])
    expect(await pool.measure(instance)).not.toBe(answers[29])
    rmSync(join(unitsDir, '..'), { recursive: true })
  })

  test('give nobody a measurement that does not tell of it', async () => {
    // Both are in our own cgroup, and no unit: each is measured alone.
    const other = spawn('/bin/sleep', ['1000'])
    await until(() => readProcLink(`/proc/${other.pid}/exe`).endsWith('/sleep'))
    await using pool = new MeasurerPool(options, sights())
    const instances = [child, other, child, other, child].map(({ pid }) => readInstance(pid!))
    const answers = await Promise.all(instances.map((instance) => pool.measure(instance)))
    answers.forEach(({ processes }, index) =>
      expect(processes.map(({ pid }) => pid)).toEqual([instances[index]!.pid]),
    )
    other.kill('SIGKILL')
  })

  test('go on with others while one unit asks without end', async () => {
    const unitsDir = join(mkdtempSync(join(tmpdir(), 'bagcheck-pool-')), 'units')
    const command = ['/bin/sleep', '1000'] as const
    await using greedy = await startUnit({ name: 'greedy', unitsDir, command: [...command] })
    await using other = await startUnit({ name: 'other', unitsDir, command: [...command] })
    const limits = { ...DEFAULT_POOL_LIMITS, threads: 1, maxWaitingOfUnit: 8 }
    await using pool = new MeasurerPool({ ...options, unitsDir }, sights(), limits)
    const codes = new Set<string>()
    const stopping = new AbortController()
    const asking = Array.from({ length: 50 }, async () => {
      while (!stopping.signal.aborted) {
        const answer = await pool.measure(greedy.instance()).catch((error: unknown) => error)
        if (answer instanceof AgentError) codes.add(answer.code)
        await setTimeout(0)
      }
    })
    for (let i = 0; i < 5; i += 1)
      expect((await pool.measure(other.instance())).unit.name).toBe('other')
    stopping.abort()
    await Promise.all(asking)
    expect([...codes]).toEqual(['MEASURER_BUSY'])
    rmSync(join(unitsDir, '..'), { recursive: true })
  })

  test('go on with other units while one makes its start last', async () => {
    const unitsDir = join(mkdtempSync(join(tmpdir(), 'bagcheck-pool-')), 'units')
    const command = ['/bin/sleep', '1000'] as const
    await using slow = await startUnit({ name: 'slow', unitsDir, command: [...command] })
    await using other = await startUnit({ name: 'other', unitsDir, command: [...command] })
    const [mark, kept] = [join(unitsDir, 'slow.starting'), join(unitsDir, '.slow')]
    writeFileSync(mark, slow.cgroup, { mode: 0o600 })
    renameSync(slow.recordFile, kept)
    await using pool = new MeasurerPool({ ...options, unitsDir }, sights())
    const instance = slow.instance()
    // Says that it starts, at once, also where a thread is free to wait.
    await expect(pool.measure(instance)).rejects.toMatchObject({ code: 'UNIT_STARTING' })
    const answered: string[] = []
    const measure = async (of: typeof instance): Promise<void> => {
      const { unit } = await awaitStart(() => pool.measure(of), setTimeout)
      answered.push(unit.name)
    }
    const waiting = Array.from({ length: 10 }, () => measure(instance))
    for (let i = 0; i < 3; i += 1) await measure(other.instance())
    expect(answered).toEqual(['other', 'other', 'other'])
    renameSync(kept, slow.recordFile)
    rmSync(mark)
    await Promise.all(waiting)
    expect(answered.slice(3)).toEqual(Array.from({ length: 10 }, () => 'slow'))
    rmSync(join(unitsDir, '..'), { recursive: true })
  })

  test('end what waits when they are stopped', async () => {
    const pool = new MeasurerPool(options, sights())
    const running = expect(pool.measure(readInstance(child.pid!))).rejects.toMatchObject({
      code: 'MEASURER_BUSY',
    })
    await pool[Symbol.asyncDispose]()
    await running
    await expect(pool.measure(readInstance(child.pid!))).rejects.toMatchObject({
      code: 'MEASURER_BUSY',
    })
  })
})
