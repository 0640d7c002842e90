// The demo is the end-to-end test: it is played once, and each of its steps is a test here.
import { spawn, type ChildProcess } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { findMissingCommands } from '../src/demo/build.ts'
import { PRIVATE_ROOT_VARIABLE } from '../src/demo/private-root.ts'
import { STEPS } from '../src/demo/story.ts'
import type { StepResult } from '../src/demo/teller.ts'

const main = join(import.meta.dirname, '../src/main.ts')

const missing = (await findMissingCommands()).map((name) => `${name} is not installed`)
if (process.getuid?.() !== 0 || process.env[PRIVATE_ROOT_VARIABLE] === undefined)
  missing.push('not in a private root (npm test makes one when it runs as root)')
if (missing.length > 0) {
  const reason = missing.join('; ')
  if (process.env['CI'] === 'true') throw new Error(`the demo is required: ${reason}`)
  console.warn(`the demo's tests are skipped: ${reason}`)
}

/** Starts the demo; `onStep` sees each step as it is told. */
function startDemo(
  args: readonly string[],
  onStep: (step: StepResult) => void,
): {
  child: ChildProcess
  ended: Promise<number | null>
  complaints: () => string
  summary: () => unknown
} {
  const child = spawn(
    process.execPath,
    ['-C', '@bagcheck/source', main, 'demo', '--json', ...args],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  let complaints = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => (complaints += text))
  let last: unknown
  createInterface({ input: child.stdout }).on('line', (line) => {
    const told = JSON.parse(line) as StepResult | { summary: unknown }
    if ('summary' in told) last = told.summary
    else onStep(told)
  })
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  return { child, ended, complaints: () => complaints, summary: () => last }
}

/** Command lines of processes whose environment or arguments name a directory. */
function processesOf(directory: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^[0-9]+$/.test(name) && Number(name) !== process.pid)
    .flatMap((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ')
        return line.includes(directory) ? [line] : []
      } catch {
        return [] // gone meanwhile
      }
    })
}

describe.runIf(missing.length === 0)('the demo', () => {
  const steps = new Map<string, StepResult>()
  let output: string
  let exitCode: number | null
  let complaints: string
  let summary: unknown

  beforeAll(async () => {
    output = mkdtempSync(join(tmpdir(), 'bagcheck-demo-'))
    const demo = startDemo(['--output', output], (step) => steps.set(step.id, step))
    exitCode = await demo.ended
    complaints = demo.complaints()
    summary = demo.summary()
  }, 180_000)
  afterAll(() => rmSync(output, { recursive: true, force: true }))

  test.each(STEPS)('step %s goes as told', (id) => {
    const step = steps.get(id)
    expect(step, `the step was not reached; standard error: ${complaints}`).toBeDefined()
    expect(step?.ok, step?.seen.join('\n')).toBe(true)
  })

  test('tells every step once, in order, and exits with 0', () => {
    expect([...steps.keys()]).toEqual([...STEPS])
    expect(exitCode).toBe(0)
    expect(summary).toEqual({ steps: STEPS.length, failures: [], kept: output })
  })

  test('keeps what can be looked at afterwards', () => {
    expect(readdirSync(output).toSorted()).toEqual([
      'policy-v1.yaml',
      'policy-v2.yaml',
      'policy-v3.yaml',
      'root.json',
      'token.evidence.json',
    ])
  })

  test('leaves no process behind', () => {
    const scratch = process.env[PRIVATE_ROOT_VARIABLE] ?? ''
    expect(processesOf(join(scratch, 'demo-'))).toEqual([])
  })
})

describe.runIf(missing.length === 0)('an interrupted demo', () => {
  test('ends everything that it started, and says so', async () => {
    const scratch = process.env[PRIVATE_ROOT_VARIABLE] ?? ''
    const { promise: running, resolve } = Promise.withResolvers<void>()
    const demo = startDemo([], ({ id }) => {
      if (id === 'issue') resolve()
    })
    await Promise.race([running, demo.ended])
    expect(processesOf(join(scratch, 'demo-')).length).toBeGreaterThan(2)
    demo.child.kill('SIGTERM')
    expect(await demo.ended).not.toBe(0)
    expect(JSON.parse(demo.complaints())).toMatchObject({ code: 'INTERRUPTED' })
    expect(processesOf(join(scratch, 'demo-'))).toEqual([])
  })

  test('killed with kill -9 leaves no process and no file behind', async () => {
    // Started as a user starts it, outside of our private root's variable: it makes a root of its own.
    const { [PRIVATE_ROOT_VARIABLE]: _ours, ...environment } = process.env
    const child = spawn(process.execPath, ['-C', '@bagcheck/source', main, 'demo', '--json'], {
      stdio: ['ignore', 'pipe', 'ignore'],
      env: environment,
    })
    const { promise: building, resolve } = Promise.withResolvers<void>()
    createInterface({ input: child.stdout }).on('line', () => resolve())
    child.once('exit', () => resolve())
    await building
    // Its one child that is not the guardian was given the scratch directory.
    const children = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8')
    const lines = children
      .trim()
      .split(' ')
      .map((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8'))
    const directory = /\0(\/var\/tmp\/bagcheck-\w+)\0/.exec(lines.join(''))?.[1] ?? ''
    expect(existsSync(directory)).toBe(true)
    child.kill('SIGKILL')
    for (let attempt = 0; attempt < 100 && existsSync(directory); attempt++) await sleep(100)
    expect(existsSync(directory)).toBe(false)
    expect(processesOf(directory)).toEqual([])
  })
})
