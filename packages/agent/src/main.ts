#!/usr/bin/env -S node -C @bagcheck/source
import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { createActionServer, listenForActions, restartService } from './actions/server.ts'
import { startAgent } from './agent.ts'
import { loadConfig, type AgentConfig } from './config.ts'
import { AgentError } from './error.ts'
import { describe, jsonLog } from './log.ts'
import { AGENT_VERSION } from './version.ts'

const USAGE = 'usage: bagcheck-agent --config FILE [--actions]\n'

// The heap for new objects stays as small as it begins (1 MB): it would grow to 16 MB twice over, to save a
// daemon that is idle most of the time a tenth of its processor time. V8 reads this at each growth.
setFlagsFromString('--semi-space-growth-factor=1')

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
  if (values.help === true) return void process.stdout.write(USAGE)
  if (values.config === undefined) throw new AgentError('CONFIG_INVALID', 'expected --config FILE')
  const stopping = new AbortController()
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    process.once(signal, () => stopping.abort(signal))
  if (values.actions === true) {
    await serveActions(loadConfig(values.config), stopping.signal)
    return
  }
  await using agent = await startAgent(loadConfig(values.config), { log, signal: stopping.signal })
  process.stdout.write(
    `${JSON.stringify({ msg: 'ready', node: agent.node, socket: agent.socket })}\n`,
  )
  await aborted(stopping.signal)
}

/** The part that restarts services, a process of its own. */
async function serveActions(config: AgentConfig, signal: AbortSignal): Promise<void> {
  const { actions, actionsSocket } = config
  const context = { actions, restart: restartService, now: Date.now, log }
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
}

try {
  await main()
  process.exit(0)
} catch (error) {
  log('error', 'the agent cannot run', describe(error))
  const code = (error as { code?: unknown } | null)?.code
  const usage = typeof code === 'string' && /^(CONFIG_|ERR_PARSE_ARGS)/.test(code)
  if (usage) process.stderr.write(USAGE)
  process.exit(usage ? 2 : 3)
}
