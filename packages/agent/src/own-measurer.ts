// A measurer for this agent alone, as a child: `bagcheck-agent` started as root has no other. The two talk over
// an unnamed pair of sockets, which is descriptor 3 of the child and ends with either.
import { spawn, type ChildProcess } from 'node:child_process'
import type { Socket } from 'node:net'
import { fileURLToPath } from 'node:url'
import type { MeasurerSettings } from './config.ts'

/** Starts it. It must be root that does, or somebody with its capabilities. */
export function startOwnMeasurer(settings: MeasurerSettings): {
  readonly child: ChildProcess
  readonly socket: Socket
} {
  const program = fileURLToPath(new URL('./measurer-main.ts', import.meta.url))
  const child = spawn(
    process.execPath,
    [...process.execArgv, program, '--own', JSON.stringify(settings)],
    { stdio: ['ignore', 'inherit', 'inherit', 'pipe'], env: { PATH: process.env['PATH'] } },
  )
  child.unref()
  // A pipe of child_process is a pair of unix sockets.
  return { child, socket: child.stdio[3] as Socket }
}
