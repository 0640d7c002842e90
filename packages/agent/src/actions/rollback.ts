// Has `bagcheck rollback` put an earlier generation in force. It verifies the policy's signatures itself, chooses among
// the generations that are there, and is given nothing but what the configuration says: the front decides when it is
// tried, and brings the policy's file, which it cannot forge.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { AgentConfig } from '../config.ts'
import { AgentError } from '../error.ts'
import type { RollbackAction } from '../front/actions/config.ts'
import { ACTION_TIMEOUT_MS } from '../front/actions/request.ts'

const MAX_OUTPUT_BYTES = 64 * 1024

/** Where the front leaves the policy for it: beside its socket, readable for everybody. */
export function policyFileOf({ socket }: Pick<AgentConfig, 'socket'>): string {
  return join(dirname(socket), 'policy.json')
}

/** What the command is called with. */
export function rollbackArguments(
  { profile, hostClass, minIntervalSeconds }: RollbackAction,
  unit: string,
  config: Pick<AgentConfig, 'socket' | 'trustRootPin' | 'installation' | 'nix'>,
  stateDirectory: string,
): readonly string[] {
  const { daemonSocket, database } = config.nix
  return [
    ...['rollback', profile, '--json'],
    ...(hostClass === null ? ['--unit', unit] : ['--host-class', hostClass]),
    ...['--policy', policyFileOf(config), '--trust', `sha256:${config.trustRootPin}`],
    ...['--installation', config.installation, '--state', stateDirectory],
    ...['--min-interval', String(minIntervalSeconds)],
    ...['--source', existsSync(daemonSocket) ? 'daemon' : 'database'],
    ...['--daemon-socket', daemonSocket, '--database', database],
  ]
}

/** @throws {AgentError} ACTION_FAILED, with the command's own code as `detail.reason` */
export function rollBack(
  bagcheck: string,
  args: readonly string[],
): Promise<Readonly<Record<string, unknown>>> {
  const options = {
    ...{ timeout: ACTION_TIMEOUT_MS.rollback, maxBuffer: MAX_OUTPUT_BYTES, cwd: '/' },
    env: { PATH: '/run/current-system/sw/bin:/usr/bin:/bin' },
  }
  return new Promise((resolve, reject) => {
    execFile(bagcheck, args, options, (cause, stdout, stderr) => {
      if (cause === null) return resolve(JSON.parse(stdout) as Record<string, unknown>)
      const { code = 'COMMAND_NOT_STARTED', message = cause.message } = lastLine(stderr)
      const detail = { reason: code }
      reject(new AgentError('ACTION_FAILED', `no rollback, ${code}: ${message}`, { cause, detail }))
    })
  })
}

/** The error that the command printed. */
function lastLine(stderr: string): { code?: string; message?: string } {
  try {
    const line = stderr.split('\n').findLast((one) => one.startsWith('{')) ?? ''
    const { code, message } = JSON.parse(line) as { code?: unknown; message?: unknown }
    return { code: String(code), message: String(message) }
  } catch {
    return {} // it was ended, or could not be started
  }
}
