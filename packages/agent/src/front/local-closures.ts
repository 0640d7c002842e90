// Closures as the local Nix knows them: through its daemon, else its database. A claim, not a proof; good
// for saying what a unit runs that no policy approves, and for the manifest of an approved closure when
// its digest says that it is the same.
import {
  connectDaemon,
  NixError,
  openNixDatabase,
  readClosure,
  type ClosureManifest,
  type ClosureSource,
  type StorePath,
} from '@bagcheck/nix'

const MAX_REMEMBERED = 64
const REMEMBER_MS = 60_000

/** Reads and remembers, for a minute, what the local Nix says. */
export class LocalClosures {
  readonly #nix: { readonly daemonSocket: string; readonly database: string }
  readonly #now: () => number
  readonly #remembered = new Map<
    StorePath,
    { readAtMs: number; manifest: Promise<ClosureManifest | undefined> }
  >()

  constructor(nix: { daemonSocket: string; database: string }, now: () => number) {
    this.#nix = nix
    this.#now = now
  }

  /** The closure of `root`; undefined if there is no Nix here, or Nix does not know the path. */
  read(root: StorePath): Promise<ClosureManifest | undefined> {
    const known = this.#remembered.get(root)
    if (known !== undefined && this.#now() - known.readAtMs < REMEMBER_MS) return known.manifest
    const manifest = this.#read(root)
    this.#remembered.delete(root)
    this.#remembered.set(root, { readAtMs: this.#now(), manifest })
    const oldest = this.#remembered.keys().next().value
    if (this.#remembered.size > MAX_REMEMBERED && oldest !== undefined)
      this.#remembered.delete(oldest)
    return manifest
  }

  async #read(root: StorePath): Promise<ClosureManifest | undefined> {
    for (const open of [() => this.#daemon(), () => this.#database()]) {
      let source: ClosureSource | undefined
      try {
        source = await open()
        return await readClosure(source, root)
      } catch (error) {
        // Without this source, or unknown to it: the next one, or nothing, which only makes a denial terser.
        if (!(error instanceof NixError)) throw error
      } finally {
        await source?.close()
      }
    }
    return undefined
  }

  #daemon(): Promise<ClosureSource> {
    return connectDaemon({ socketPath: this.#nix.daemonSocket, timeoutMs: 5000 })
  }

  async #database(): Promise<ClosureSource> {
    return openNixDatabase(this.#nix.database)
  }
}
