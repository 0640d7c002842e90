// What evidence says of the agent itself: an agent is a bag too. At tier 0 this is its own word.
import { createHash } from 'node:crypto'
import { realpathSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { storePathOf, type StorePath } from '@bagcheck/nix'
import type { Evidence } from '@bagcheck/api'
import { AGENT_VERSION } from '../version.ts'
import type { LocalClosures } from './local-closures.ts'

const CHUNK_BYTES = 256 * 1024

/** The agent, with the sha256 of the program it runs in and the store paths of program and code. */
export async function readAgentFacts(local: LocalClosures): Promise<Evidence['agent']> {
  const hash = createHash('sha256')
  await using program = await open('/proc/self/exe')
  // One buffer for all of some 120 MB: fresh ones stay resident long after they were read.
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES)
  for (;;) {
    const { bytesRead } = await program.read(chunk, 0, CHUNK_BYTES, null)
    if (bytesRead === 0) break
    hash.update(chunk.subarray(0, bytesRead))
  }
  const roots = ownStorePaths().map(async (root) => {
    const closureDigest = (await local.read(root))?.digest ?? null
    return { root, closureDigest }
  })
  return {
    version: AGENT_VERSION,
    executable: hash.digest('hex') as Evidence['agent']['executable'],
    roots: await Promise.all(roots),
  }
}

/** Of the code first; none where the agent does not run from the store. */
function ownStorePaths(): StorePath[] {
  const files = [import.meta.filename, process.execPath].map(resolveFile)
  return [...new Set(files.map((file) => storePathOf(file)).filter((path) => path !== undefined))]
}

/** Links resolved as far as the front's user may look; the store is open to everybody. */
function resolveFile(file: string): string {
  try {
    return realpathSync(file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EACCES') return file
    throw error
  }
}
