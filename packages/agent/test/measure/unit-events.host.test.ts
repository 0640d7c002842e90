import { spawn, type ChildProcess } from 'node:child_process'
import { afterEach, describe, expect, test } from 'vitest'
import { openProcessConnector } from '../../src/measure/process-connector.ts'
import type { UnitChangedNotice } from '../../src/measure/protocol.ts'
import { UnitEvents } from '../../src/measure/unit-events.ts'
import { readProcLink } from '../../src/measure/proc-file.ts'
import { until } from '../fixture/unit.ts'

const probe = openProcessConnector()
const reason = 'reason' in probe ? probe.reason : undefined
if (reason !== undefined)
  console.warn(
    `tests of the process connector are skipped: this kernel or user has none (${reason})`,
  )

const children: ChildProcess[] = []
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL')
})

/** A shell that does each line that it is given. */
function shell(): ChildProcess & { pid: number } {
  const child = spawn('/bin/sh', [], { stdio: ['pipe', 'ignore', 'ignore'] })
  children.push(child)
  return child as ChildProcess & { pid: number }
}

/** Events of the units that are watched, and what comes next. */
function listen(connector = openProcessConnector()): AsyncDisposable & {
  watch(cgroup: string, pids: number[], ageMs?: number): void
  next(): Promise<UnitChangedNotice>
} {
  if ('reason' in connector) throw new Error(connector.reason)
  const heard: UnitChangedNotice[] = []
  const events = new UnitEvents(connector, (cause) => {
    throw new Error(`the thread of events ended: ${String(cause)}`)
  })
  events.subscribe((notice) => heard.push(notice))
  return {
    watch: (cgroup, pids, ageMs = 0) =>
      events.watch({
        unit: {
          launcher: 'bagcheck-exec',
          name: 'unit',
          cgroup,
          contract: null,
          container: null,
          service: null,
        },
        processes: pids.map((pid) => ({ pid })) as never, // nothing else of them is looked at
        measuredAtMs: Date.now() - ageMs,
      }),
    next: async () => {
      await until(() => heard.length > 0)
      return heard.shift()!
    },
    [Symbol.asyncDispose]: () => events[Symbol.asyncDispose](),
  }
}

/** Commands to the thread take a moment. */
async function settle(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 300))
}

describe.runIf(reason === undefined)('a unit that is watched', () => {
  test('is told when its process executes another program', async () => {
    const child = shell()
    await until(() => readProcLink(`/proc/${child.pid}/exe`).endsWith('sh'))
    await using watched = listen()
    watched.watch('/orders', [child.pid])
    await settle()
    child.stdin!.write('exec sleep 1000\n')
    expect(await watched.next()).toMatchObject({ cgroup: '/orders', change: 'exec' })
  })

  test('is told when a child executes something, and not for a fork', async () => {
    const [child, other] = [shell(), shell()]
    await using watched = listen()
    watched.watch('/orders', [child.pid])
    watched.watch('/reports', [other.pid])
    await settle()
    other.stdin!.write('( : ; read line ) &\n') // forks, and its child executes nothing
    child.stdin!.write('( sleep 0 ) &\n')
    expect(await watched.next()).toMatchObject({ cgroup: '/orders', change: 'exec' })
    other.stdin!.write('sleep 0\n')
    expect(await watched.next()).toMatchObject({ cgroup: '/reports', change: 'exec' })
  })

  test('is told when a process changes its user, and when it gets a tracer', async () => {
    const [user, traced] = [
      spawn('/usr/bin/perl', ['-e', '<STDIN>; $> = 65534; sleep 1000'], {
        stdio: ['pipe', 'ignore', 'ignore'],
      }),
      shell(),
    ]
    children.push(user)
    await until(() => readProcLink(`/proc/${user.pid}/exe`).includes('perl'))
    await using watched = listen()
    watched.watch('/user', [user.pid!])
    watched.watch('/traced', [traced.pid])
    await settle()
    user.stdin!.write('\n')
    expect(await watched.next()).toMatchObject({ cgroup: '/user', change: 'credentials' })
    // PTRACE_SEIZE by a process of its own, which lets go again when it ends.
    const script = 'exit(syscall(101, 0x4206, $ARGV[0] + 0, 0, 0) == 0 ? 0 : 1)'
    const seized = spawn('/usr/bin/perl', ['-e', script, String(traced.pid)])
    expect(await new Promise((resolve) => seized.once('exit', resolve))).toBe(0)
    expect(await watched.next()).toMatchObject({ cgroup: '/traced', change: 'ptrace' })
  })

  test('is told once, and again after it is watched again', async () => {
    const child = shell()
    await using watched = listen()
    for (let round = 0; round < 3; round += 1) {
      watched.watch('/orders', [child.pid])
      await settle()
      child.stdin!.write('sleep 0; sleep 0; sleep 0\n')
      expect(await watched.next()).toMatchObject({ cgroup: '/orders', change: 'exec' })
      await settle()
    }
  })

  test('is told of what came between its measurement and the watch', async () => {
    const child = shell()
    await using watched = listen()
    await settle()
    child.stdin!.write('( sleep 0 ) &\n')
    await settle()
    watched.watch('/later', [child.pid])
    await settle()
    watched.watch('/orders', [child.pid], 900)
    expect(await watched.next()).toMatchObject({ cgroup: '/orders', pids: [child.pid] })
  })

  test('is told as lost when the kernel had more to tell than was read', async () => {
    const connector = openProcessConnector(4096)
    // Nobody reads until the buffer runs over.
    const storm = spawn('/bin/sh', ['-c', 'for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0; done'])
    await new Promise((resolve) => storm.once('exit', resolve))
    await using watched = listen(connector)
    watched.watch('/orders', [process.pid])
    expect(await watched.next()).toMatchObject({ cgroup: '/orders', change: 'lost' })
  })
})
