#!/usr/bin/env -S node -C @bagcheck/source
// bagcheck-broker --config FILE. Opens everything, listens, says so in one JSON line on standard output,
// and stops cleanly at SIGTERM or SIGINT. Exit codes: 0 stopped, 2 usage, 3 could not start or go on.
import { parseArgs } from 'node:util'
import { openBroker } from './broker.ts'
import { loadConfig } from './config.ts'
import { openLogger } from './logger.ts'
import { VERSION } from './routes/discovery.ts'
import { listen } from './server.ts'

const USAGE = `usage: bagcheck-broker --config FILE

Verifies evidence, evaluates policy, logs every decision and mints tokens.
FILE is JSON; see docs/operations.md.
`

process.umask(0o077)
const logger = openLogger()

function readArguments(): { config: string } {
  try {
    const { values } = parseArgs({
      options: {
        config: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
        version: { type: 'boolean' },
      },
    })
    if (values.version) {
      process.stdout.write(`bagcheck-broker ${VERSION}\n`)
      process.exit(0)
    }
    if (values.help) {
      process.stdout.write(USAGE)
      process.exit(0)
    }
    if (values.config !== undefined) return { config: values.config }
    process.stderr.write(USAGE)
  } catch (error) {
    process.stderr.write(`bagcheck-broker: ${(error as Error).message}\n${USAGE}`)
  }
  process.exit(2)
}

async function main(): Promise<void> {
  // Listened for from the start: whoever reads the ready line may stop us at once.
  const { promise: told, resolve: stop } = Promise.withResolvers<string>()
  process.once('SIGTERM', stop).once('SIGINT', stop)
  const broker = await openBroker(loadConfig(readArguments().config), { wall: Date.now, logger })
  try {
    const server = await listen(broker)
    const ready = { msg: 'ready', listen: server.listen, admin: server.admin }
    process.stdout.write(`${JSON.stringify(ready)}\n`)
    logger.info({ listen: server.listen, admin: server.admin }, 'ready')
    broker.loadClosures()
    logger.info({ signal: await told }, 'stopping')
    await server.stop()
  } finally {
    // Also when a socket is taken: a store left open would keep the process alive.
    await broker.close()
  }
}

try {
  await main()
} catch (err) {
  logger.error({ err }, 'the broker could not start')
  const { code, message } = err as { code?: unknown; message?: unknown }
  process.stderr.write(`bagcheck-broker: ${String(code ?? 'INTERNAL')}: ${String(message)}\n`)
  process.exitCode = 3
}
