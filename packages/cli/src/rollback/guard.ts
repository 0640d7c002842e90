// What rollbacks remember, in a directory of root's: that no older policy is believed than one that was seen, that a
// profile is not switched again at once, and that nobody who switches it forward and we who switch it back do so in
// turns. It is written down before anything is switched; who is killed in between has used the attempt up. One rollback
// at a time: of two that had read it before either wrote, the second would take back what the first had seen.
import { closeSync, constants, lstatSync, mkdirSync, openSync } from 'node:fs'
import { join } from 'node:path'
import type { StorePath } from '@bagcheck/nix'
import { CliError, EXIT } from '../error.ts'
import { ifThere, readSmallText, writeOutput } from '../files.ts'
import { tryLock } from './lock.ts'

const SCHEMA = 'bagcheck.rollbacks/v1'
const MAX_LEFT = 64

interface Remembered {
  readonly schema: typeof SCHEMA
  /** By pin of the trust root, whose highest version is `trustRoot`. */
  readonly policies: Readonly<
    Record<string, { version: number; sha256: string; trustRoot: number }>
  >
  readonly profiles: Readonly<Record<string, { atMs: number; left: readonly StorePath[] }>>
}

/** What of it must hold now; nobody else's until it is disposed of. */
export class RollbackGuard implements Disposable {
  readonly #lock: number
  readonly #file: string
  #remembered: Remembered

  private constructor(lock: number, file: string, remembered: Remembered) {
    this.#lock = lock
    this.#file = file
    this.#remembered = remembered
  }

  [Symbol.dispose](): void {
    closeSync(this.#lock)
  }

  /** @throws {CliError} FILE_UNREADABLE, ROLLBACK_LIMIT – another one is under way */
  static async open(directory: string): Promise<RollbackGuard> {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    const { uid, mode } = lstatSync(directory)
    if (uid !== 0 || (mode & 0o022) !== 0)
      throw new CliError(
        'FILE_UNREADABLE',
        `${directory} must be root's, and nobody else's to write`,
      )
    // Not the directory itself: whoever may read that could hold its lock for ever.
    const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants
    const lock = openSync(join(directory, 'lock'), O_RDWR | O_CREAT | O_NOFOLLOW, 0o600)
    try {
      if (!(await tryLock(lock))) throw limited('another rollback is under way')
      const file = join(directory, 'rollbacks.json')
      const text = await ifThere(readSmallText(file))
      if (text === undefined)
        return new RollbackGuard(lock, file, { schema: SCHEMA, policies: {}, profiles: {} })
      const value = JSON.parse(text) as Remembered // ours, below a directory of root's
      if (value.schema === SCHEMA) return new RollbackGuard(lock, file, value)
      throw new CliError('FILE_UNREADABLE', `expected ${SCHEMA} in ${file}`)
    } catch (error) {
      closeSync(lock)
      throw error
    }
  }

  /**
   * Remembers a verified policy and the version of the trust root that it was verified with, if none of them was
   * replaced: a key that a later trust root took away signs nothing any more.
   * @throws {CliError} ROLLBACK_LIMIT
   */
  async see(
    pin: string,
    { version, sha256 }: { version: number; sha256: string },
    trustRoot: number,
  ): Promise<void> {
    const { policies } = this.#remembered
    const highest = Object.hasOwn(policies, pin) ? policies[pin] : undefined
    if (highest !== undefined) {
      if (trustRoot < highest.trustRoot)
        throw limited(
          `expected trust root version ${highest.trustRoot} or a later one, saw ${trustRoot}`,
        )
      const isKnown = version === highest.version && sha256 === highest.sha256
      if (isKnown && trustRoot === highest.trustRoot) return
      if (!isKnown && version <= highest.version)
        throw limited(
          `expected policy version ${highest.version} (${highest.sha256}) or a later one, saw ${version} (${sha256})`,
        )
    }
    await this.#write({ policies: { ...policies, [pin]: { version, sha256, trustRoot } } })
  }

  /**
   * Takes the one attempt of this interval, to leave `path`.
   * @throws {CliError} ROLLBACK_LIMIT, ROLLBACK_FLAPPING
   */
  async take(
    profile: string,
    { path, nowMs, intervalMs }: { path: StorePath; nowMs: number; intervalMs: number },
  ): Promise<void> {
    const { profiles } = this.#remembered
    const { atMs, left } = profiles[profile] ?? { atMs: Number.NEGATIVE_INFINITY, left: [] }
    // A clock that was set back is no reason to wait for ever, nor one not to wait.
    if (Math.abs(nowMs - atMs) < intervalMs) throw limited(`${profile} was switched back just now`)
    if (left.includes(path))
      throw new CliError(
        'ROLLBACK_FLAPPING',
        `${profile} was switched back from ${path} before, and somebody has switched it forward again; ` +
          `people must decide. Remove ${this.#file} to allow it once more`,
        { exit: EXIT.refused },
      )
    const now = { atMs: nowMs, left: [...left, path].slice(-MAX_LEFT) }
    await this.#write({ profiles: { ...profiles, [profile]: now } })
  }

  async #write(changes: Partial<Remembered>): Promise<void> {
    this.#remembered = { ...this.#remembered, ...changes }
    await writeOutput(this.#file, JSON.stringify(this.#remembered), 0o600)
  }
}

function limited(message: string): CliError {
  return new CliError('ROLLBACK_LIMIT', message, { exit: EXIT.refused })
}
