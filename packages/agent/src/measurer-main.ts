#!/usr/bin/env -S node -C @bagcheck/source
import { chownSync, mkdirSync } from 'node:fs'
import { Socket } from 'node:net'
import { dirname } from 'node:path'
import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { loadConfig, measurerSettings, type MeasurerSettings } from './config.ts'
import { AgentError } from './error.ts'
import { describe, jsonLog } from './log.ts'
import { openProcessConnector } from './measure/process-connector.ts'
import { startMeasurer } from './measurer.ts'
import {
  assertApart,
  closeOnExec,
  executeAsMeasurer,
  findUser,
  hasMeasurerPrivileges,
  hasStartPrivileges,
  readPrivileges,
  type User,
} from './privileges.ts'
import { makePublicDirectory } from './unix-socket.ts'
import { AGENT_VERSION } from './version.ts'

const USAGE = 'usage: bagcheck-measurer --config FILE\n'
const HELP = `${USAGE}
Looks at processes for the bagcheck-agent that runs as the configuration's user, at measurer.socket. Takes three
capabilities, or root to keep those of it.
FILE is the agent's configuration; see docs/operations.md.
`
/** Where an agent that starts its own measurer is. */
const OWN_FRONT = 3

setFlagsFromString('--semi-space-growth-factor=1') // as in main.ts
setFlagsFromString('--heap-growing-percent=20')

const log = jsonLog((line) => process.stderr.write(line), Date.now)

/** Exit codes: 0 stopped, 2 usage or configuration, 3 could not run. */
async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      config: { type: 'string' },
      help: { type: 'boolean', short: 'h' },
      version: { type: 'boolean' },
      // What the agent gives the one it starts, and what we give ourselves.
      own: { type: 'string' },
      dropped: { type: 'boolean' },
      events: { type: 'string' },
    },
  })
  if (values.version === true)
    return void process.stdout.write(`bagcheck-measurer ${AGENT_VERSION}\n`)
  if (values.help === true) return void process.stdout.write(HELP)
  const { settings, front } = readSettings(values)
  const privileges = readPrivileges()
  if (!hasMeasurerPrivileges(privileges)) {
    const mayDrop = process.geteuid?.() === 0 || hasStartPrivileges(privileges)
    if (values.dropped === true || !mayDrop)
      throw new AgentError(
        'PRIVILEGES',
        'expected three capabilities, those and two to start with, or root to take them from; ' +
          'an agent that is not started as root needs measurer.socket, and bagcheck-measurer there',
      )
    drop(settings)
  }
  if (front !== null) assertApart(findUser(front.user), process.geteuid?.())
  const connector =
    values.dropped === true && values.events !== undefined
      ? { fd: Number(values.events) }
      : undefined
  if (connector !== undefined) closeOnExec(connector.fd)
  await using measurer = startMeasurer(settings, log, connector)
  const ended = new Promise<void>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const)
      // One of an agent ends with it: a signal to both must not take it away first.
      process.on(signal, () => void (front === null || resolve()))
  })
  if (front === null) return await measurer.serve(new Socket({ fd: OWN_FRONT }))
  await measurer.listen(front.socket, findUser(front.user).uid)
  log('info', 'measuring', { socket: front.socket, front: front.user })
  process.stdout.write(`${JSON.stringify({ msg: 'ready', socket: front.socket })}\n`)
  await ended
}

/** Opens what needs root or more than three capabilities, then executes this program anew without them. */
function drop(settings: MeasurerSettings): never {
  const user = process.geteuid?.() === 0 ? findUser(settings.user) : null
  if (user !== null) makeDirectories(settings, user)
  const [, script = '', ...args] = process.argv
  const keep = settings.socket === null ? [OWN_FRONT] : []
  const connector = openProcessConnector()
  if ('reason' in connector) log('info', 'no events of processes', connector)
  else {
    keep.push(connector.fd)
    args.push('--events', String(connector.fd))
  }
  executeAsMeasurer(user, [...process.execArgv, script, ...args, '--dropped'], keep)
}

/** What root makes for the measurer; a service manager has made it for one that it starts as itself. */
function makeDirectories({ stateDir, socket }: MeasurerSettings, { uid, gid }: User): void {
  if (mkdirSync(stateDir, { recursive: true, mode: 0o700 }) !== undefined)
    chownSync(stateDir, uid, gid)
  if (socket === null) return
  makePublicDirectory(dirname(socket))
  chownSync(dirname(socket), uid, gid)
}

/** The settings, and the front: null is the agent that started us. */
function readSettings(values: { config?: string | undefined; own?: string | undefined }): {
  settings: MeasurerSettings
  front: { socket: string; user: string } | null
} {
  if (values.own !== undefined)
    // Written by the agent, out of a configuration that it has checked.
    return { settings: JSON.parse(values.own) as MeasurerSettings, front: null }
  if (values.config === undefined) throw new AgentError('CONFIG_INVALID', 'expected --config FILE')
  const config = loadConfig(values.config)
  const { socket } = config.measurer
  if (socket === null)
    throw new AgentError('CONFIG_INVALID', 'expected measurer.socket in the configuration')
  return { settings: measurerSettings(config), front: { socket, user: config.user } }
}

try {
  await main()
  process.exit(0)
} catch (error) {
  log('error', 'the measurer cannot run', describe(error))
  const code = (error as { code?: unknown } | null)?.code
  const usage = typeof code === 'string' && /^(CONFIG_|ERR_PARSE_ARGS)/.test(code)
  if (usage) process.stderr.write(USAGE)
  process.exit(usage ? 2 : 3)
}
