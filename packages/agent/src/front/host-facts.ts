// What evidence says of the host and of the agent itself. At tier 0 this is the agent's word.
import { createHash } from 'node:crypto'
import { readFileSync, realpathSync } from 'node:fs'
import { open } from 'node:fs/promises'
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

const CHUNK_BYTES = 256 * 1024

/** The agent, with the sha256 of the program it runs in. */
export async function readAgentFacts(): Promise<Evidence['agent']> {
  const hash = createHash('sha256')
  await using program = await open('/proc/self/exe')
  // One buffer for all of some 120 MB: fresh ones stay resident long after they were read.
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES)
  for (;;) {
    const { bytesRead } = await program.read(chunk, 0, CHUNK_BYTES, null)
    if (bytesRead === 0) break
    hash.update(chunk.subarray(0, bytesRead))
  }
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
