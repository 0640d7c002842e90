#!/usr/bin/env -S node -C @bagcheck/source
import { accessSync, chownSync, constants, mkdirSync, readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { rollbackArguments, rollBack } from './actions/rollback.ts'
import { createActionServer, listenForActions, restartService } from './actions/server.ts'
import { startAgent, type AgentOptions } from './agent.ts'
import { loadConfig, measurerSettings, type AgentConfig } from './config.ts'
import { AgentError } from './error.ts'
import type { RootAction } from './front/actions/config.ts'
import { describe, jsonLog } from './log.ts'
import { startOwnMeasurer } from './own-measurer.ts'
import { assertApart, assertUnprivileged, becomeUser, findUser } from './privileges.ts'
import { readOptional } from './state-directory.ts'
import { AGENT_VERSION } from './version.ts'

const USAGE = 'usage: bagcheck-agent --config FILE [--actions]\n'
const HELP = `${USAGE}
Serves the workloads of this host: has them measured (by bagcheck-measurer, or by one of its own where it is
started as root), and obtains their tokens and SVIDs from the broker.
With --actions it is the other part, which restarts services and rolls profiles back after a denial (root).
FILE is JSON, the same for all parts; see docs/operations.md.
`

// The heap for new objects stays as small as it begins (1 MB): it would grow to 16 MB twice over, to save a
// daemon that is idle most of the time a tenth of its processor time. V8 reads this at each growth.
setFlagsFromString('--semi-space-growth-factor=1')
// The heap for old ones is collected when it has grown by a fifth and not when it has doubled: half a day's renewals in minutes
// grew the front from 35 MB of its own to 90.
setFlagsFromString('--heap-growing-percent=20')

const log = jsonLog((line) => process.stderr.write(line), Date.now)

/** Exit codes: 0 stopped, 2 usage or configuration, 3 could not run. */
async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      config: { type: 'string' },
      actions: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
      version: { type: 'boolean' },
    },
  })
  if (values.version === true) return void process.stdout.write(`bagcheck-agent ${AGENT_VERSION}\n`)
  if (values.help === true) return void process.stdout.write(HELP)
  if (values.config === undefined) throw new AgentError('CONFIG_INVALID', 'expected --config FILE')
  const stopping = new AbortController()
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    process.once(signal, () => stopping.abort(signal))
  if (values.actions === true) return serveActions(loadConfig(values.config), stopping.signal)
  const config = loadConfig(values.config)
  const asRoot = process.geteuid?.() === 0 ? leaveRoot(config, stopping) : {}
  assertUnprivileged()
  warnIfHidden(import.meta.filename)
  await using agent = await startAgent(config, { log, signal: stopping.signal, ...asRoot })
  process.stdout.write(
    `${JSON.stringify({ msg: 'ready', node: agent.node, socket: agent.socket })}\n`,
  )
  await aborted(stopping.signal)
}

/** The part that restarts services and rolls profiles back, a process of its own. */
async function serveActions(config: AgentConfig, signal: AbortSignal): Promise<void> {
  const { actions, actionsSocket } = config
  // Installed together; the directory is what systemd made for the unit.
  const bagcheck = join(import.meta.dirname, 'bagcheck')
  const state = process.env['STATE_DIRECTORY'] ?? '/var/lib/bagcheck-actions'
  const perform = async (action: RootAction, unit: string): Promise<Record<string, unknown>> => {
    if (action.do === 'rollback')
      return rollBack(bagcheck, rollbackArguments(action, unit, config, state))
    await restartService(unit)
    return {}
  }
  const context = { actions, perform, now: Date.now, log }
  const server = createActionServer(context)
  await listenForActions(server, actionsSocket)
  process.stdout.write(`${JSON.stringify({ msg: 'ready', socket: actionsSocket })}\n`)
  await aborted(signal)
  server.close()
}

async function aborted(signal: AbortSignal): Promise<void> {
  await new Promise((resolve) => {
    if (signal.aborted) resolve(undefined)
    signal.addEventListener('abort', resolve)
  })
  if (signal.reason instanceof AgentError) throw signal.reason
}

/**
 * What root does before anything foreign is read: directories for the front's user, a measurer if none is
 * configured. The front cannot start another, so it ends with it.
 */
function leaveRoot(
  config: AgentConfig,
  stopping: AbortController,
): Pick<AgentOptions, 'measurer' | 'readText'> {
  const user = findUser(config.user)
  if (config.measurer.socket === null) assertApart(user, findUser(config.measurer.user).uid)
  const readText = readAhead([config.joinToken, config.brokerCa])
  for (const [directory, mode] of [
    [dirname(config.socket), 0o755],
    [dirname(config.spiffeSocket ?? config.socket), 0o755],
    [config.stateDir, 0o700],
  ] as const)
    if (mkdirSync(directory, { recursive: true, mode }) !== undefined)
      chownSync(directory, user.uid, user.gid)
  const own =
    config.measurer.socket === null ? startOwnMeasurer(measurerSettings(config)) : undefined
  becomeUser(user)
  if (own === undefined) return { readText }
  const gone = new AgentError('MEASURER_UNREACHABLE', 'the measurer of this agent ended')
  own.child.once('exit', () => stopping.abort(gone))
  const sockets = [own.socket]
  const measurer = async (): Promise<Socket> => {
    const socket = sockets.pop()
    if (socket === undefined) throw gone
    return socket
  }
  return { measurer, readText }
}

/** Code that the front's user cannot read costs the threads that verify the store: one does it all. */
function warnIfHidden(file: string): void {
  try {
    accessSync(file, constants.R_OK)
  } catch {
    log('warn', 'the front cannot read its own code: install it where every user may', { file })
  }
}

/** Reads files that may be root's alone; one that is not there is an error when it is needed. */
function readAhead(files: readonly (string | null)[]): (file: string) => string {
  const texts = new Map<string, string | undefined>()
  for (const file of files) if (file !== null) texts.set(file, readOptional(file))
  return (file) => texts.get(file) ?? readFileSync(file, 'utf8')
}

try {
  await main()
  process.exit(0)
} catch (error) {
  log('error', 'the agent cannot run', describe(error))
  const code = (error as { code?: unknown } | null)?.code
  const usage = typeof code === 'string' && /^(CONFIG_|ERR_PARSE_ARGS|USER_UNKNOWN)/.test(code)
  if (usage) process.stderr.write(USAGE)
  process.exit(usage ? 2 : 3)
}
