// Secrets in the sources of a build: what `src = ./.` or `builtins.toFile` put into the store, where every user can
// read it. Only what is a secret by its form is looked for; paths and dates are ordinary in sources.
import { decodeByteString } from '../derivation/derivation.ts'
import type { DerivationGraph } from '../derivation/graph.ts'
import { readNar } from '../nar/reader.ts'
import { isDerivationPath } from '../output-path.ts'
import { storePathName } from '../store-path.ts'
import type { StorePath } from '../store-path.ts'
import type { AuditFinding, Seen } from './finding.ts'
import { bySeverity, makeFinding } from './make-finding.ts'
import { auditSecrets } from './text.ts'

/** How much of each file is looked at, from its start. */
export const AUDITED_FILE_BYTES: number = 1 << 20

/** What {@link auditSources} found. */
export interface SourceAudit {
  readonly sources: number
  readonly files: number
  /** Sources that are not to be had. */
  readonly unread: readonly StorePath[]
  /**
   * As those of `auditDerivations`; the derivation is one that uses the source, and `field` is `sources.NAME/FILE`.
   */
  readonly findings: readonly AuditFinding[]
}

/**
 * Looks for secrets in every input source of `graph`. No finding shows a secret.
 *
 * @param openNar the archive of a source; `undefined` where it is not to be had.
 * @throws {NixError} whatever reading an archive throws.
 */
export async function auditSources(
  graph: DerivationGraph,
  openNar: (path: StorePath) => AsyncIterable<Uint8Array> | undefined,
  signal?: AbortSignal,
): Promise<SourceAudit> {
  const userOf = new Map<StorePath, StorePath>()
  for (const [path, { inputSources }] of graph.derivations)
    for (const source of inputSources)
      if (!isDerivationPath(source) && !userOf.has(source)) userOf.set(source, path)
  const unread: StorePath[] = []
  const findings: AuditFinding[] = []
  let files = 0
  for (const [source, user] of userOf) {
    signal?.throwIfAborted()
    const archive = openNar(source)
    if (archive === undefined) {
      unread.push(source)
      continue
    }
    const name = graph.derivations.get(user)?.name ?? ''
    for await (const { file, text } of readTexts(archive)) {
      files += 1
      const seen: Seen[] = auditSecrets(`sources.${storePathName(source)}${file}`, text)
      findings.push(...seen.map((one) => makeFinding(user, name, one)))
    }
  }
  return { sources: userOf.size, files, unread, findings: findings.toSorted(bySeverity) }
}

/** The regular files of an archive: `''` or `/path`, and their first bytes as text. */
async function* readTexts(
  archive: AsyncIterable<Uint8Array>,
): AsyncGenerator<{ readonly file: string; readonly text: string }> {
  // For each open directory its path, and the entry that comes next.
  const open: string[] = []
  let file = ''
  let reading: { chunks: Uint8Array[]; left: number; kept: number } | undefined
  const finish = (): string => {
    const text = decodeByteString(Buffer.concat(reading?.chunks ?? []).toString('latin1'))
    reading = undefined
    return text
  }
  for await (const event of readNar(archive)) {
    switch (event.type) {
      case 'directory':
        open.push(file)
        break
      case 'entry':
        file = `${open.at(-1) ?? ''}/${event.name}`
        break
      case 'end':
        open.pop()
        break
      case 'regular':
        reading = { chunks: [], left: event.size, kept: 0 }
        if (event.size === 0) yield { file, text: finish() }
        break
      case 'chunk': {
        if (reading === undefined) throw new TypeError('contents follow a file')
        const { bytes } = event
        const kept = bytes.subarray(0, AUDITED_FILE_BYTES - reading.kept)
        if (kept.length > 0) reading.chunks.push(Uint8Array.from(kept)) // the reader may use it again
        reading.kept += kept.length
        reading.left -= bytes.length
        if (reading.left === 0) yield { file, text: finish() }
        break
      }
      case 'symlink':
        break
    }
  }
}
