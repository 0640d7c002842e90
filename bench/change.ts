// From a bag's change to its last credential. A workload that watches its tokens changes: it executes a foreign program
// beside itself, which the kernel tells the agent, or loads a foreign library, which nothing tells but the next
// renewal. Each round is a new unit and ends with the denial; the time is reckoned from the line by which the
// workload, or what it executed, says that it happened.
import { chmodSync, copyFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { effort, format } from './budget.ts'
import { openFleet, type Fleet } from './fleet.ts'
import { median, printTable } from './statistics.ts'
import { canStartUnits, type Unit } from './units.ts'

const ROUNDS = effort(20, 1)

/** Prints the table. */
export async function run(): Promise<void> {
  if (!canStartUnits()) return
  await using fleet = await openFleet()
  const program = foreign(fleet, '/bin/busybox')
  const library = foreign(fleet, libraryOf(process.pid))
  const executes = { signal: 'SIGUSR1', foreign: program } as const
  const loads = { signal: 'SIGUSR2', foreign: library } as const
  const rows = [
    await observe('executes a program', fleet, { ...executes, ttlSeconds: 300 }),
    await observe('executes a program', fleet, { ...executes, ttlSeconds: 5 }),
    await observe('loads a library', fleet, { ...loads, ttlSeconds: 5 }),
    await observe('loads a library', fleet, { ...loads, ttlSeconds: 20 }),
  ]
  printTable(
    [
      ...['the bag', 'lifetime s', 'rounds', 'to the denial: p50 ms', 'max ms'],
      ...['max / lifetime', 'tokens after it', 'the last at, ms', 'last expiry after it, s'],
    ],
    rows,
  )
}

interface Change {
  readonly signal: 'SIGUSR1' | 'SIGUSR2'
  readonly foreign: string
  readonly ttlSeconds: number
}

async function observe(what: string, fleet: Fleet, change: Change): Promise<string[]> {
  const denials: number[] = []
  const tokens: number[] = []
  let outlived = -Infinity
  for (let round = 0; round < ROUNDS; round += 1) {
    const { ttlSeconds, foreign: file, signal } = change
    await using unit = await fleet.start({ mode: 'tell', ttlSeconds, foreign: file })
    const first = await nextEvent(unit)
    if (first.kind !== 'token') throw new Error(`expected a token, saw ${first.kind}`)
    // At any time between two renewals, each as likely.
    await sleep(Math.min(ttlSeconds * 500, 5000) * ((round + 0.5) / ROUNDS) * 0.9)
    let { expiresAt } = first
    let changedAt: number | undefined
    process.kill(unit.pid, signal)
    for (;;) {
      const event = await nextEvent(unit)
      if (event.kind === 'changed') changedAt = Date.now()
      else if (event.kind === 'token') {
        ;({ expiresAt } = event)
        if (changedAt !== undefined) tokens.push(Date.now() - changedAt)
      } else {
        if (changedAt === undefined) throw new Error('expected a change before the denial')
        denials.push(Date.now() - changedAt)
        outlived = Math.max(outlived, expiresAt - changedAt / 1000)
        break
      }
    }
  }
  const longest = Math.max(...denials)
  return [
    ...[what, `${change.ttlSeconds}`, `${denials.length}`],
    ...[format(median(denials)), `${longest}`, format(longest / 1000 / change.ttlSeconds)],
    ...[`${tokens.length}`, tokens.length === 0 ? '' : `${Math.max(...tokens)}`, format(outlived)],
  ]
}

type Event =
  | { readonly kind: 'token'; readonly expiresAt: number }
  | { readonly kind: 'denied' }
  | { readonly kind: 'changed' }

/** The next event that the workload hears of, or that it says itself. */
async function nextEvent(unit: Unit): Promise<Event> {
  for (;;) {
    const line = await unit.line()
    if (line === 'changed') return { kind: 'changed' }
    if (line.startsWith('event: denied')) return { kind: 'denied' }
    if (!line.startsWith('data: {"accessToken"')) continue
    const { expiresAt } = JSON.parse(line.slice('data: '.length)) as { expiresAt: number }
    return { kind: 'token', expiresAt }
  }
}

/** A copy of a file of the host that everybody may map and execute: in nobody's closure. */
function foreign({ directory }: Fleet, file: string): string {
  const copy = join(directory, `foreign-${file.split('/').at(-1)}`)
  copyFileSync(file, copy)
  chmodSync(copy, 0o755)
  return copy
}

/** The mathematics library, as this process maps it. */
function libraryOf(pid: number): string {
  const file = /\/\S*\/libm\.so\S*/.exec(readFileSync(`/proc/${pid}/maps`, 'utf8'))?.[0]
  if (file === undefined) throw new Error('expected a libm in this process')
  return file
}
