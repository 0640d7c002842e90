// What evidence says of the host and of the agent itself. At tier 0 this is the agent's word.
import { createHash } from 'node:crypto'
import { createReadStream, readFileSync, realpathSync } from 'node:fs'
import { release } from 'node:os'
import type { Evidence } from '@bagcheck/api'
import { AGENT_VERSION } from '../version.ts'

/** The host as it is now. */
export function readHostFacts(): Evidence['host'] {
  return {
    bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
    kernel: release(),
    currentSystem: resolve('/run/current-system'),
    bootedSystem: resolve('/run/booted-system'),
  }
}

/** The agent, with the sha256 of the program it runs in. */
export async function readAgentFacts(): Promise<Evidence['agent']> {
  const hash = createHash('sha256')
  for await (const chunk of createReadStream('/proc/self/exe')) hash.update(chunk as Buffer)
  return {
    version: AGENT_VERSION,
    executable: hash.digest('hex') as Evidence['agent']['executable'],
  }
}

/** Null where the host is no NixOS. */
function resolve(link: string): string | null {
  try {
    return realpathSync(link)
  } catch {
    return null
  }
}
