#!/usr/bin/env -S node -C @bagcheck/source
// `bagcheck`. All that is outside the program comes in here.
import { runCli } from './run.ts'
import { TABLE } from './table.ts'

const interrupted = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => interrupted.abort(new Error(`ended by ${signal}`)))
}
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0) // whoever read us has read enough
  throw error
})

process.exitCode = await runCli(TABLE, process.argv.slice(2), {
  env: process.env,
  signal: interrupted.signal,
  now: () => new Date(),
  stdout: (text) => void process.stdout.write(text),
  stderr: (text) => void process.stderr.write(text),
  terminal: process.stderr.isTTY,
  color: process.stdout.isTTY && process.env['NO_COLOR'] === undefined,
})
