// Reads a whole log through its tiles and computes its root anew, as an auditor does who trusts nothing
// but the signature on the checkpoint.
import type { Client } from '@bagcheck/api'
import {
  appendLeaves,
  formatTilePath,
  leafHash,
  parseEntryBundle,
  sameHash,
  tileAt,
  TILE_WIDTH,
  type Checkpoint,
} from '@bagcheck/log'
import { CliError, EXIT } from '../error.ts'

/**
 * Recomputes the root of the first `checkpoint.size` entries.
 * @throws {CliError} REFUSED – the entries do not give the root that the log signed
 */
export async function auditLog(
  client: Pick<Client, 'tile'>,
  checkpoint: Checkpoint,
  onProgress: (entries: number) => void,
): Promise<void> {
  const nodes = new Map<string, Uint8Array>()
  const readNode = (level: number, index: number): Uint8Array => {
    const hash = nodes.get(`${level}/${index}`)
    if (hash === undefined) throw new TypeError(`node ${level}/${index} was not kept`)
    return hash
  }
  let size = 0
  let { root } = appendLeaves(0, [], readNode)
  while (size < checkpoint.size) {
    const tile = tileAt('entries', size / TILE_WIDTH, checkpoint.size)
    if (tile === undefined) throw new TypeError('no tile below the size')
    const entries = parseEntryBundle(await client.tile(formatTilePath(tile)), tile.width)
    const appended = appendLeaves(size, entries.map(leafHash), readNode)
    for (const { level, index, hash } of appended.nodes) {
      // Of each level only the newest complete subtree can still be asked for.
      nodes.delete(`${level}/${index - 2}`)
      nodes.set(`${level}/${index}`, hash)
    }
    ;({ size, root } = appended)
    onProgress(size)
  }
  if (!sameHash(root, checkpoint.root)) {
    throw new CliError(
      'REFUSED',
      `the ${size} entries that the log serves do not give the root that it signed`,
      { exit: EXIT.refused },
    )
  }
}
