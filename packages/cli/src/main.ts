#!/usr/bin/env -S node -C @bagcheck/source
// `bagcheck`. All that is outside the program comes in here.
import { CLOSURE } from './closure/table.ts'
import { group, type Group } from './command.ts'
import { EXIT } from './error.ts'
import { runCli } from './run.ts'

// Closures are compared often, in the time that Node takes to read what the other commands need.
const closures: Group = group('', { closure: CLOSURE })
const table = process.argv[2] === 'closure' ? closures : (await import('./table.ts')).TABLE

const interrupted = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => interrupted.abort(new Error(`ended by ${signal}`)))
}
// Whoever read us may have read enough: what is done is done and keeps its exit code, so that a refusal is none the
// less one where it is piped to `head`; what is under way ends. That a result was lost otherwise (a full disk) is no success.
process.stdout.on('error', ({ code, message }: NodeJS.ErrnoException) => {
  interrupted.abort(new Error('nobody reads what is printed any more'))
  if (code === 'EPIPE') return
  process.stderr.write(`bagcheck: FILE_UNWRITABLE: standard output cannot be written: ${message}\n`)
  process.on('exit', (code) => {
    if (code === EXIT.ok) process.exitCode = EXIT.failed
  })
})
process.stderr.on('error', () => undefined) // there is nobody left to tell

const dumb = process.env['TERM'] === 'dumb'
process.exitCode = await runCli(table, process.argv.slice(2), {
  env: process.env,
  signal: interrupted.signal,
  now: () => new Date(),
  stdout: (text) => void process.stdout.write(text),
  stderr: (text) => void process.stderr.write(text),
  terminal: process.stderr.isTTY && !dumb,
  color: process.stdout.isTTY && !dumb && !process.env['NO_COLOR'], // set and not empty, as no-color.org has it
})
