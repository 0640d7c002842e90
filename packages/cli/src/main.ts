#!/usr/bin/env -S node -C @bagcheck/source
// `bagcheck`. All that is outside the program comes in here.
import { CLOSURE } from './closure/table.ts'
import { group, type Group } from './command.ts'
import { runCli } from './run.ts'

// Closures are compared often, in the time that Node takes to read what the other commands need.
const closures: Group = group('', { closure: CLOSURE })
const table = process.argv[2] === 'closure' ? closures : (await import('./table.ts')).TABLE

const interrupted = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => interrupted.abort(new Error(`ended by ${signal}`)))
}
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0) // whoever read us has read enough
  throw error
})

process.exitCode = await runCli(table, process.argv.slice(2), {
  env: process.env,
  signal: interrupted.signal,
  now: () => new Date(),
  stdout: (text) => void process.stdout.write(text),
  stderr: (text) => void process.stderr.write(text),
  terminal: process.stderr.isTTY,
  color: process.stdout.isTTY && process.env['NO_COLOR'] === undefined,
})
