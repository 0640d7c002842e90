// What the store keeps when the process, the database or the disk fails: everything that was answered,
// nothing by halves, and one history.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { verifyConsistency } from '@bagcheck/log'
import { postgresAvailable, startPostgres } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { BrokerError } from '../src/error.ts'
import { CRASH_POINTS, type CrashPoint } from '../src/store/crash-point.ts'
import type { EngineConfig } from '../src/store/engine.ts'
import type { Store } from '../src/store/store.ts'
import {
  ban,
  checkpointOf,
  decision,
  engines,
  enrolment,
  open,
  openWithNode,
  policy,
  proveAll,
  tamperSql,
  type Databases,
} from './store/fixtures.ts'

const refusedWith = (code: string) => expect.objectContaining({ code })
const child = fileURLToPath(new URL('store/crash-child.ts', import.meta.url))

/** Runs the child; `onAnswer` may kill it. Resolves to the ids that it was answered for, and how it ended. */
async function runChild(
  engine: EngineConfig,
  options: { crashPoint?: CrashPoint; first: number; count: number },
  onAnswer: (answered: number, kill: () => void) => void = () => undefined,
): Promise<{ answered: string[]; signal: string | null }> {
  const args = [JSON.stringify(engine), options.crashPoint ?? '', options.first, options.count]
  const running = spawn(process.execPath, ['-C', '@bagcheck/source', child, ...args.map(String)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let output = ''
  running.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text
    onAnswer(output.split('\n').length - 1, () => running.kill('SIGKILL'))
  })
  const [, signal] = await once(running, 'close')
  return { answered: output.split('\n').slice(0, -1), signal }
}

describe.each(engines)('a crash on $name', ({ name, open: openDatabases }) => {
  const there = name === 'SQLite' || postgresAvailable()
  let databases: Databases
  beforeAll(async () => {
    if (there) databases = await openDatabases()
  })
  afterAll(() => databases?.[Symbol.asyncDispose]())

  /** Opens what a crash left, and checks that it is one proven log that goes on. */
  async function recover(config: EngineConfig, answered: readonly string[]): Promise<number> {
    await using store = await open(config)
    const { size } = await store.head()
    expect((await checkpointOf(store)).size).toBe(size)
    const refs = await proveAll(store)
    expect(refs).toEqual(expect.arrayContaining([...answered]))
    // Of each decision all is there: its row, its bodies.
    for (const ref of refs.slice(2)) {
      const stored = await store.decision(ref)
      const { entryIndex = -1, evidenceSha256: sha256 = '' } = stored ?? {}
      expect(await store.body({ entryIndex, part: 'evidence', sha256 })).toBeDefined()
    }
    expect(await store.decisions({ limit: 1_000 })).toHaveLength(size - 2)
    expect((await store.commitDecision(decision(9_999))).index).toBe(size)
    return size
  }

  test.skipIf(!there).each(CRASH_POINTS)('at %s loses nothing that was answered', async (point) => {
    const config = await databases.fresh()
    await (await openWithNode(config)).close()
    const { answered, signal } = await runChild(config, { crashPoint: point, first: 0, count: 3 })
    expect(signal).toBe('SIGKILL')
    expect(answered).toEqual(['decision-0', 'decision-1', 'decision-2'])
    const committed = (await recover(config, answered)) - 5
    // The first batch holds one to three of the decisions; either all of it is there or nothing.
    if (point === 'after-commit' || point === 'after-checkpoint')
      expect(committed).toBeGreaterThanOrEqual(1)
    else expect(committed).toBe(0)
  })

  test.skipIf(!there)('at any time, again and again, loses nothing that was answered', async () => {
    const config = await databases.fresh()
    await (await openWithNode(config)).close()
    const all: string[] = []
    for (const answers of [1, 7, 20]) {
      const options = { first: all.length * 100, count: 100_000 }
      const { answered, signal } = await runChild(config, options, (seen, kill) => {
        if (seen >= answers) kill()
      })
      expect(signal).toBe('SIGKILL')
      expect(answered.length).toBeGreaterThanOrEqual(answers)
      all.push(...answered)
      await using store = await open(config)
      expect(await proveAll(store)).toEqual(expect.arrayContaining(all))
    }
    await recover(config, all)
  })

  test.skipIf(!there)('a database put back behind a running store stops the log', async () => {
    const config = await databases.fresh()
    await using store = await openWithNode(config)
    for (let i = 0; i < 6; i++) await store.commitDecision(decision(i))
    const signed = await store.checkpoint()
    await tamperSql(
      config,
      'delete from decision where entry_idx >= 4',
      'delete from entry where idx >= 4',
      'delete from node where level = 0 and idx >= 4 or level = 1 and idx >= 2',
      'delete from node where level = 2 and idx >= 1 or level = 3',
      'update head set size = 4, root = (select hash from node where level = 2)',
    )
    const refused = refusedWith('LOG_CORRUPT')
    for (let i = 10; i < 16; i++)
      await expect(store.commitDecision(decision(i))).rejects.toEqual(refused)
    expect(await store.checkpoint()).toBe(signed)
    expect((await store.head()).size).toBe(4)
  })
})

describe('a SQLite store', () => {
  let directory = ''
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-faults-'))
  })
  afterAll(() => rmSync(directory, { recursive: true }))

  test('answers STORE_TIMEOUT while another process holds the database, and then goes on', async () => {
    const file = join(directory, 'locked.sqlite')
    await (await openWithNode({ sqlite: { file } })).close()
    await using store = await open({ sqlite: { file } }, { timeoutMs: 200 })
    const other = new DatabaseSync(file)
    other.exec('begin immediate')
    await expect(store.commitDecision(decision(1))).rejects.toEqual(refusedWith('STORE_TIMEOUT'))
    other.exec('rollback')
    other.close()
    // The caller gave up, the write did not: it stays one decision, and its nonce is spent.
    await untilIt(async () => expect((await store.head()).size).toBe(3))
    await expect(store.commitDecision(decision(1))).rejects.toEqual(refusedWith('NONCE_REUSED'))
  })

  test('that cannot be opened says so', async () => {
    const file = join(directory, 'absent', 'x.sqlite')
    await expect(open({ sqlite: { file } })).rejects.toEqual(refusedWith('STORE_UNAVAILABLE'))
    const text = join(directory, 'text')
    writeFileSync(text, 'not a database, whatever its name says\n'.repeat(40))
    await expect(open({ sqlite: { file: text } })).rejects.toEqual(refusedWith('LOG_CORRUPT'))
  })
})

const mountable = canMount()
describe.skipIf(!mountable)('a full disk', () => {
  let mountPoint = ''
  beforeAll(() => {
    mountPoint = mkdtempSync(join(tmpdir(), 'bagcheck-full-'))
  })
  afterAll(() => rmSync(mountPoint, { recursive: true, force: true }))

  /** Commits decisions with evidence of 64 KiB until one is refused; all that were answered are proven. */
  async function fill(store: Store): Promise<{ answered: string[]; error: unknown }> {
    const answered: string[] = []
    for (let i = 0; ; i++) {
      const evidence = Buffer.alloc(64 * 1024, `evidence ${i}`)
      try {
        await store.commitDecision(decision(i, { evidence }))
        answered.push(`decision-${i}`)
      } catch (error) {
        return { answered, error }
      }
    }
  }

  test('under SQLite is STORE_FULL; with room again it goes on, and all that was answered is there', async () => {
    run('mount', '-t', 'tmpfs', '-o', 'size=4m', 'bagcheck', mountPoint)
    try {
      const config = { sqlite: { file: join(mountPoint, 'full.sqlite') } }
      const ballast = join(mountPoint, 'ballast')
      writeFileSync(ballast, Buffer.alloc(1024 * 1024))
      const store = await openWithNode(config)
      const { answered, error } = await fill(store)
      expect(answered.length).toBeGreaterThan(5)
      expect(error).toEqual(refusedWith('STORE_FULL'))
      await expect(
        store.commitDecision(decision(9_000, { evidence: Buffer.alloc(1024 * 1024) })),
      ).rejects.toEqual(refusedWith('STORE_FULL'))
      rmSync(ballast)
      answered.push('decision-9001')
      await store.commitDecision(decision(9_001))
      await store.close()
      await using again = await open(config)
      expect(await proveAll(again)).toEqual(expect.arrayContaining(answered))
    } finally {
      run('umount', '--lazy', mountPoint)
    }
  })

  test.skipIf(!postgresAvailable())('under PostgreSQL is STORE_FULL likewise', async () => {
    run('mount', '-t', 'tmpfs', '-o', 'size=16m,mode=0777', 'bagcheck', mountPoint)
    try {
      await using server = await startPostgres()
      const space = join(mountPoint, 'space')
      run('install', '-d', '-o', 'postgres', '-m', '0700', space)
      run('chmod', '0755', mountPoint)
      await server.query(`create tablespace small location '${space}'`)
      const config = { postgres: { url: await server.createDatabase('full', 'small') } }
      const ballast = join(mountPoint, 'ballast')
      writeFileSync(ballast, Buffer.alloc(1024 * 1024))
      const store = await openWithNode(config)
      const random = async () => {
        const answered: string[] = []
        for (let i = 0; ; i++) {
          // Not compressible: PostgreSQL would fit any number of equal bytes.
          const evidence = crypto.getRandomValues(new Uint8Array(64 * 1024))
          try {
            await store.commitDecision(decision(i, { evidence }))
            answered.push(`decision-${i}`)
          } catch (error) {
            return { answered, error }
          }
        }
      }
      const { answered, error } = await random()
      expect(answered.length).toBeGreaterThan(5)
      expect(error).toEqual(refusedWith('STORE_FULL'))
      rmSync(ballast)
      await store.commitDecision(decision(9_001))
      await store.close()
      await using again = await open(config)
      expect(await proveAll(again)).toEqual(expect.arrayContaining([...answered, 'decision-9001']))
    } finally {
      run('umount', '--lazy', mountPoint)
    }
  })
})

describe.skipIf(!postgresAvailable())('a PostgreSQL store', () => {
  test('without its server answers with a code, and goes on when it is back', async () => {
    await using server = await startPostgres()
    const config = { postgres: { url: await server.createDatabase('gone') } }
    await using store = await openWithNode(config)
    const answered: string[] = []
    const codes = new Set<string>()
    let stop = false
    const writing = (async () => {
      for (let i = 0; !stop; i++) {
        try {
          await store.commitDecision(decision(i))
          answered.push(`decision-${i}`)
        } catch (error) {
          codes.add(error instanceof BrokerError ? error.code : String(error))
          await setTimeout(5)
        }
      }
    })()
    await untilIt(async () => expect(answered.length).toBeGreaterThan(10))
    await server.crash()
    await untilIt(async () => expect(codes.size).toBeGreaterThan(0))
    await expect(store.health()).rejects.toEqual(refusedWith('STORE_UNAVAILABLE'))
    await expect(store.head()).rejects.toEqual(refusedWith('STORE_UNAVAILABLE'))
    const before = answered.length
    await server.start()
    await untilIt(async () => expect(answered.length).toBeGreaterThan(before + 10))
    stop = true
    await writing
    expect([...codes]).toEqual(['STORE_UNAVAILABLE'])
    expect(await store.health()).toMatchObject({ waiting: 0 })
    expect(await proveAll(store)).toEqual(expect.arrayContaining(answered))
  })

  test('waits for another writer no longer than its bounds', async () => {
    await using server = await startPostgres()
    const config = { postgres: { url: await server.createDatabase('held') } }
    await (await openWithNode(config)).close()
    await using patient = await open(config)
    await using hasty = await open(config, { timeoutMs: 200 })
    // Longer than the statement's bound, which is 5 s.
    const held = server.query('select pg_advisory_lock(7089059814158985067), pg_sleep(7)', 'held')
    const holds = "select count(*) from pg_locks where locktype = 'advisory' and granted"
    await untilIt(async () => expect((await server.query(holds, 'held')).trim()).toBe('1'))
    const refused = refusedWith('STORE_TIMEOUT')
    await expect(hasty.commitDecision(decision(1))).rejects.toEqual(refused)
    await expect(patient.commitDecision(decision(2))).rejects.toEqual(refused)
    await held
    await patient.commitDecision(decision(3))
    expect(await proveAll(patient)).toEqual(expect.arrayContaining(['decision-3']))
  })

  test('that two brokers share is one log without a gap or a fork', async () => {
    await using server = await startPostgres()
    const config = { postgres: { url: await server.createDatabase('shared') } }
    await using a = await openWithNode(config)
    await using b = await open(config)
    const earlier = [await checkpointOf(a)]
    const committed = await Promise.all(
      Array.from({ length: 400 }, async (_, i) => {
        const done = await (i % 2 === 0 ? a : b).commitDecision(decision(i))
        if (i % 40 === 0) earlier.push(await checkpointOf(i % 80 === 0 ? a : b))
        return done
      }),
    )
    const indices = committed.map(({ index }) => index).sort((x, y) => x - y)
    expect(indices).toEqual(indices.map((_, i) => i + 2))
    expect(await checkpointOf(a)).toEqual(await checkpointOf(b))
    expect(await proveAll(b)).toEqual(await proveAll(a))
    const { size: to, root: toRoot } = await checkpointOf(a)
    for (const { size: from, root: fromRoot } of earlier) {
      const proof = await b.consistencyProof(from, to)
      verifyConsistency({ from, to, fromRoot, toRoot, proof })
    }
    // What one has committed, the other respects.
    const won = async (calls: readonly Promise<unknown>[]) =>
      (await Promise.allSettled(calls)).filter(({ status }) => status === 'fulfilled').length
    const both = [a, b, a, b, a, b]
    const { joinToken } = enrolment(50)
    expect(
      await won(both.map((s, i) => s.commitDecision(decision(1_000 + i, { nonce: 'same' })))),
    ).toBe(1)
    expect(await won(both.map((s, i) => s.commitEnrolment(enrolment(50 + i, { joinToken }))))).toBe(
      1,
    )
    expect(await won(both.map((s) => s.commitPolicy(policy(2))))).toBe(1)
    await expect(b.commitDecision(decision(2_000))).rejects.toEqual(refusedWith('POLICY_CHANGED'))
    await a.banNode(ban('node-1'))
    await expect(
      b.commitDecision(decision(2_001, { expect: { policyVersion: 2 } })),
    ).rejects.toEqual(refusedWith('NODE_BANNED'))
  })

  test('opens while another broker writes', async () => {
    await using server = await startPostgres()
    const config = { postgres: { url: await server.createDatabase('busy') } }
    await using store = await openWithNode(config)
    let stop = false
    const writing = (async () => {
      for (let i = 0; !stop; i++) await store.commitDecision(decision(i))
    })()
    for (let i = 0; i < 3; i++) await (await open(config)).close()
    stop = true
    await writing
    await proveAll(store)
  })
})

/** Tries until the claim holds; the test's own time limit ends it. */
async function untilIt(claim: () => Promise<void>): Promise<void> {
  for (;;) {
    try {
      return await claim()
    } catch {
      await setTimeout(20) // not yet
    }
  }
}

function canMount(): boolean {
  if (process.env['BAGCHECK_PRIVATE_ROOT'] !== undefined) return true
  if (process.env['CI'] === 'true') throw new Error('tests with a full disk need a private root')
  console.warn(
    'tests with a full disk are skipped: not in a private root (npm test makes one as root)',
  )
  return false
}

function run(program: string, ...args: string[]): void {
  const { status, stderr } = spawnSync(program, args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`)
}
