// Which closures fit a unit, and is their content on this host what was attested.
//
// A closure fits when it holds every store path that the unit executes, maps or names in its launch
// contract. Where none holds them all (a library preloaded from elsewhere in the store), those that hold
// the contract's own paths are told, and the broker finds the foreign file. More roots can only make the
// broker deny more: each file and each root is judged there.
//
// Which of several file lists of one closure the broker hands out is its choice, and the agent keeps it: so a
// list only names what differs. What content is good is said by the manifest, whose digest policy approved.
//
// The content of each closure is walked at most once per interval for the whole host, whoever asks. Full
// passes come when the last one gets too old for the policy, or when the audience takes nothing weaker; of
// each closure one at a time, and for such audiences one a minute.
import { lstatSync } from 'node:fs'
import {
  parseFileList,
  parseManifest,
  storePathOf,
  verifyClosure,
  type ClosureManifest,
  type ClosureVerification,
  type FileList,
  type Ledger,
  type StorePath,
} from '@bagcheck/nix'
import type { Evidence } from '@bagcheck/api'
import { listAttributes } from '../attributes.ts'
import { AgentError } from '../error.ts'
import { describe, type Log } from '../log.ts'
import type {
  HashRequest,
  PathHash,
  ProcessInstance,
  SettledMeasurement,
} from '../measure/messages.ts'
import type { AttestationTexts, BrokerClient } from './broker-client.ts'
import type { LocalClosures } from './local-closures.ts'
import { NO_POLICY, readPolicyView, type Candidate, type PolicyView } from './policy-view.ts'
import type { AgentState } from './state.ts'

/** Facts about one root, as evidence carries them. */
export type RootFacts = Evidence['facts']['roots'][number]

/** What of a measurement tells which closures fit. */
export type MeasuredUnit = Pick<
  SettledMeasurement,
  'unit' | 'processes' | 'containerStore' | 'init'
>

const MAX_ROOTS = 63
const MAX_CLOSURES_IN_MEMORY = 64
/** Without a word of the policy, everything is read again twice a day. */
const DEFAULT_MAX_AGE_FULL_SECONDS = 86_400
/**
 * So long a full pass is told to audiences that demand one, while incremental looks find nothing moved:
 * read anew for each request, a closure that many renew would keep the disk busy. A full pass that takes
 * longer than this can still be told, because it counts from the pass's end.
 */
const FULL_INTERVAL_MS = 60_000

/** A closure that the policy names; the broker alone looks at who attested it. */
interface KnownClosure {
  readonly manifest: ClosureManifest
  readonly paths: ReadonlySet<StorePath>
  /** Names files that differ. Undefined if only the local Nix knew the manifest: then paths are named. */
  readonly files: FileList | undefined
}

/** What {@link Roots} works with. */
export interface RootsContext {
  readonly state: AgentState
  readonly broker: BrokerClient
  readonly local: LocalClosures
  readonly ledger: Ledger
  /** Content of the store that a container brings itself, by its first process. */
  readonly hashContained: (
    instance: ProcessInstance,
    request: HashRequest,
  ) => Promise<readonly PathHash[]>
  readonly trustRootPin: string
  readonly intervalMs: number
  /** Puts the broker's policy, as it came, where others read it. */
  readonly keepPolicy?: (response: string) => void
  readonly now: () => number
  readonly log: Log
}

/** Knows the policy's closures and the state of their content. */
export class Roots {
  readonly #context: RootsContext
  // The policy, and the request under way for a newer one.
  #policy: PolicyView = NO_POLICY
  #refreshing: Promise<void> | undefined
  // By closure digest: texts, the last verification, the last that read everything; those under way.
  readonly #closures = new Map<string, Promise<KnownClosure | undefined>>()
  readonly #verified = new Map<string, ClosureVerification>()
  readonly #full = new Map<string, { result: ClosureVerification; endedAtMs: number }>()
  readonly #verifying = new Map<string, Promise<ClosureVerification>>()
  readonly #closing = new AbortController()

  constructor(context: RootsContext) {
    this.#context = context
  }

  /** Units that the policy wants observed. */
  get observed(): PolicyView['observed'] {
    return this.#policy.observed
  }

  get policyVersion(): number {
    return this.#policy.version
  }

  /** Of the policy; undefined before one was read. */
  get trustDomain(): string | undefined {
    return this.#policy.trustDomain
  }

  /**
   * Makes sure that the policy is at least `version`.
   * @throws {AgentError} what the broker client throws; TRUST_ROOT_MISMATCH, POLICY_ROLLBACK
   */
  async refreshPolicy(version: number): Promise<void> {
    if (version > 0 && version === this.#policy.version) return
    this.#refreshing ??= this.#loadPolicy().finally(() => (this.#refreshing = undefined))
    await this.#refreshing
  }

  /**
   * Facts of every root that fits `measurement`, approved ones first, and the unit's own local root;
   * their content checked as `audience` demands.
   */
  async fitting(measurement: MeasuredUnit, audience: string): Promise<RootFacts[]> {
    const needed = neededPaths(measurement)
    const contained = measurement.containerStore !== null
    const candidates = this.#policy
      .candidates(measurement.unit.name)
      .filter(({ root }) => contained || lstatSync(root, { throwIfNoEntry: false }) !== undefined)
    const closures: { candidate: Candidate; closure: KnownClosure }[] = []
    for (const candidate of candidates) {
      const closure = await this.#closure(candidate)
      if (closure !== undefined) closures.push({ candidate, closure })
    }
    const holding = (paths: readonly StorePath[]): typeof closures =>
      closures.filter(({ closure }) => paths.every((path) => closure.paths.has(path)))
    const whole = holding(needed.all)
    const fits = whole.length > 0 ? whole : holding(needed.contract)
    const facts = await Promise.all(
      fits
        .slice(0, MAX_ROOTS)
        .map(({ candidate, closure }) =>
          contained
            ? this.#checkContained(candidate, closure, audience, measurement)
            : this.#check(candidate, closure, audience),
        ),
    )
    // Of a store that a container brings the local Nix knows nothing.
    const local =
      needed.own === undefined || contained ? undefined : await this.#localRoot(needed.own)
    const told = facts.some(
      (fact) => fact.root === local?.root && fact.closureDigest === local.closureDigest,
    )
    return local === undefined || told ? facts : [...facts, local]
  }

  async #loadPolicy(): Promise<void> {
    const { state, broker, trustRootPin, log } = this.#context
    const response = await broker.policy()
    const highest = Math.max(this.#policy.version, state.readPolicyVersion())
    const policy = readPolicyView(response, { pin: trustRootPin, highest })
    if (policy.version > highest) state.writePolicyVersion(policy.version)
    this.#policy = policy
    this.#context.keepPolicy?.(JSON.stringify(response))
    log('info', 'policy read', { version: policy.version })
  }

  /** Stops what is being read; resolves when the ledger is no longer in use. */
  async close(): Promise<void> {
    this.#closing.abort()
    await Promise.allSettled(this.#verifying.values())
  }

  /** The closure behind a candidate, or undefined: the broker will say what is missing. */
  #closure(candidate: Candidate): Promise<KnownClosure | undefined> {
    const { closureDigest } = candidate
    const known = this.#closures.get(closureDigest)
    if (known !== undefined) return known
    const loading = this.#loadClosure(candidate).catch((error: unknown) => {
      this.#closures.delete(closureDigest) // try again at the next request
      this.#context.log('warn', 'closure not known', { closureDigest, ...describe(error) })
      return undefined
    })
    this.#closures.set(closureDigest, loading)
    const oldest = this.#closures.keys().next().value
    if (this.#closures.size > MAX_CLOSURES_IN_MEMORY && oldest !== undefined)
      this.#closures.delete(oldest)
    return loading
  }

  async #loadClosure(candidate: Candidate): Promise<KnownClosure> {
    const { state, broker, local, log } = this.#context
    const { closureDigest, root } = candidate
    const cached = state.readAttestation(closureDigest)
    if (cached !== undefined) {
      try {
        return parseTexts(candidate, JSON.parse(cached) as AttestationTexts)
      } catch (error) {
        log('warn', 'cached attestation not usable', { closureDigest, ...describe(error) })
      }
    }
    try {
      const { manifest, files } = await broker.attestation(closureDigest)
      const closure = parseTexts(candidate, { manifest, files })
      state.writeAttestation(closureDigest, JSON.stringify({ manifest, files }))
      return closure
    } catch (error) {
      const manifest = await local.read(root)
      if (manifest?.digest !== closureDigest) throw error
      return { manifest, paths: pathsOf(manifest), files: undefined }
    }
  }

  /**
   * The content of a store in a container's layers, all of it: the manifest's NAR hashes decide, as for the
   * host's store. What was hashed before and has not moved is not read again, until it is too old for
   * the policy or the audience.
   */
  async #checkContained(
    candidate: Candidate,
    { manifest }: KnownClosure,
    audience: string,
    { containerStore, init, unit }: MeasuredUnit,
  ): Promise<RootFacts> {
    if (containerStore === null || init === null) throw new TypeError('expected a container')
    const checkedAtMs = this.#context.now()
    const maxAgeMs = (candidate.maxAgeFullSeconds ?? DEFAULT_MAX_AGE_FULL_SECONDS) * 1000
    const isFull = candidate.fullFor.has(audience)
    const paths = manifest.entries.map(({ path }) => path)
    const owner = unit.container?.userMaps?.uids.find(({ inside }) => inside === 0)?.outside ?? 0
    const hashes = await this.#context.hashContained(init, {
      ...{ store: containerStore, paths, owner },
      maxAgeMs: isFull ? Math.min(FULL_INTERVAL_MS, maxAgeMs) : maxAgeMs,
    })
    const wrong = manifest.entries
      .map((entry, index) => ({ entry, seen: hashes[index] }))
      .find(
        ({ entry, seen }) =>
          seen?.path !== entry.path || seen.narHash !== entry.narHash || seen.deviation !== null,
      )
    const lastFullAtMs = Math.min(...hashes.map(({ hashedAtMs }) => hashedAtMs))
    return {
      root: manifest.root,
      closureDigest: manifest.digest,
      store: 'container',
      strength: isFull || hashes.every(({ read }) => read) ? 'full' : 'incremental',
      checkedAt: Math.floor(checkedAtMs / 1000),
      lastFullAt: Math.floor(lastFullAtMs / 1000),
      mismatch:
        wrong === undefined
          ? null
          : {
              path: wrong.entry.path,
              file: null,
              kind: 'in the container',
              expected: wrong.entry.narHash,
              seen: (wrong.seen?.deviation ?? wrong.seen?.narHash ?? 'nothing').slice(0, 512),
            },
    }
  }

  async #check(candidate: Candidate, closure: KnownClosure, audience: string): Promise<RootFacts> {
    const verification = await this.#verify(candidate, closure, audience)
    const [mismatch] = verification.mismatches
    return {
      root: closure.manifest.root,
      closureDigest: closure.manifest.digest,
      store: 'host',
      strength: verification.strength,
      checkedAt: Math.floor(verification.checkedAtMs / 1000),
      lastFullAt: Math.floor(verification.lastFullAtMs / 1000),
      mismatch:
        mismatch === undefined
          ? null
          : {
              path: mismatch.path,
              file: mismatch.file?.slice(0, 4096) ?? null,
              kind: mismatch.kind,
              expected: mismatch.expected.slice(0, 512),
              seen: mismatch.seen.slice(0, 512),
            },
    }
  }

  async #verify(
    candidate: Candidate,
    closure: KnownClosure,
    audience: string,
  ): Promise<ClosureVerification> {
    const { now } = this.#context
    const maxAgeMs = (candidate.maxAgeFullSeconds ?? DEFAULT_MAX_AGE_FULL_SECONDS) * 1000
    const look = await this.#look(closure, maxAgeMs)
    if (!candidate.fullFor.has(audience) || !look.ok || look.strength === 'full') return look
    // Nothing moved since; the full pass is told as what it was, with its own date.
    const last = this.#full.get(closure.manifest.digest)
    const ageMs = last === undefined ? Infinity : now() - last.endedAtMs
    const intervalMs = Math.min(FULL_INTERVAL_MS, maxAgeMs)
    if (last?.result.ok === true && ageMs >= 0 && ageMs < intervalMs) return last.result
    return this.#start(closure, true)
  }

  /** The state of a closure now, by a full pass only where the last one is `maxAgeMs` old. */
  async #look(closure: KnownClosure, maxAgeMs: number): Promise<ClosureVerification> {
    const { now, intervalMs } = this.#context
    const known = this.#verified.get(closure.manifest.digest)
    // A clock that was set back leaves a check of the future: nobody knows how old it is.
    const last = known !== undefined && known.checkedAtMs <= now() ? known : undefined
    const fullAgeMs = last === undefined ? 0 : now() - last.lastFullAtMs
    // A mismatch is looked at anew each time, so that a mended store is seen at once.
    if (last?.ok === true && now() - last.checkedAtMs < intervalMs && fullAgeMs < maxAgeMs)
      return last
    const result = await this.#start(closure, fullAgeMs >= maxAgeMs)
    if (result.strength === 'full') return result
    if (now() - result.lastFullAtMs >= maxAgeMs) return this.#start(closure, true)
    // From half its life on a full pass is renewed beside the requests, which go on with the old one.
    if (now() - result.lastFullAtMs >= maxAgeMs / 2) void this.#renewFull(closure)
    return result
  }

  /** A verification; who asks for the same while it is under way shares it. */
  #start(closure: KnownClosure, full: boolean): Promise<ClosureVerification> {
    const { digest } = closure.manifest
    const key = full ? `full ${digest}` : digest
    const running = this.#verifying.get(key)
    if (running !== undefined) return running
    const verifying = this.#run(closure, full)
      .then((result) => {
        const last = this.#verified.get(digest)
        // What was looked at beside a long full pass is newer than that.
        const isNewest = last === undefined || last.checkedAtMs <= result.checkedAtMs
        if (!result.ok || isNewest || last.checkedAtMs > this.#context.now())
          this.#verified.set(digest, result)
        if (result.strength === 'full')
          this.#full.set(digest, { result, endedAtMs: this.#context.now() })
        return result
      })
      .finally(() => this.#verifying.delete(key))
    this.#verifying.set(key, verifying)
    return verifying
  }

  async #renewFull(closure: KnownClosure): Promise<void> {
    try {
      await this.#start(closure, true) // its result is in the ledger
    } catch (error) {
      this.#context.log('warn', 'full verification failed', {
        closureDigest: closure.manifest.digest,
        ...describe(error),
      })
    }
  }

  #run(closure: KnownClosure, full: boolean): Promise<ClosureVerification> {
    const { ledger, now } = this.#context
    return verifyClosure(closure.manifest, {
      ...(closure.files === undefined ? {} : { files: closure.files }),
      ledger,
      full,
      maxMismatches: 1,
      readAttributes: listAttributes,
      signal: this.#closing.signal,
      now,
    })
  }

  /** What the unit runs, by the word of the local Nix: nothing was read of it. */
  async #localRoot(path: StorePath): Promise<RootFacts | undefined> {
    const manifest = await this.#context.local.read(path)
    if (manifest === undefined) return undefined
    return {
      root: manifest.root,
      closureDigest: manifest.digest,
      store: 'host',
      strength: 'path-claim',
      checkedAt: Math.floor(this.#context.now() / 1000),
      lastFullAt: 0,
      mismatch: null,
    }
  }
}

/** The store paths that a unit needs. */
export interface NeededPaths {
  /** Executed, mapped, or named in the contract. */
  readonly all: readonly StorePath[]
  /** Of the launch contract alone. */
  readonly contract: readonly StorePath[]
  /** The one that holds the script, or the program itself. */
  readonly own: StorePath | undefined
}

/** Reads off a measurement what a fitting closure must hold. */
export function neededPaths({
  unit,
  processes,
}: Pick<MeasuredUnit, 'unit' | 'processes'>): NeededPaths {
  const named = unit.contract === null ? [] : unit.contract.arguments
  const executable = unit.contract?.executable ?? processes[0]?.executable.path ?? ''
  const scripts = storePaths(named)
  const contract = storePaths([executable, ...named])
  const mapped = processes.flatMap((process) => [process.executable, ...process.files])
  const all = [...new Set([...contract, ...storePaths(mapped.map((file) => file.path))])]
  return { all, contract, own: scripts[0] ?? contract[0] }
}

function storePaths(files: readonly string[]): StorePath[] {
  const paths = files.map((file) => storePathOf(file))
  return [...new Set(paths.filter((path) => path !== undefined))]
}

function parseTexts(candidate: Candidate, texts: AttestationTexts): KnownClosure {
  const manifest = parseManifest(Buffer.from(texts.manifest))
  if (manifest.digest !== candidate.closureDigest || manifest.root !== candidate.root)
    throw new AgentError(
      'MANIFEST_MISMATCH',
      `expected closure ${candidate.closureDigest} of ${candidate.root}, ` +
        `saw ${manifest.digest} of ${manifest.root}`,
    )
  const paths = pathsOf(manifest)
  const files = parseFileList(Buffer.from(texts.files))
  const foreign = files.files.find(({ path }) => !paths.has(storePathOf(path) as StorePath))
  if (foreign !== undefined)
    throw new AgentError('MANIFEST_MISMATCH', `${foreign.path} is not in the closure`)
  return { manifest, paths, files }
}

function pathsOf(manifest: ClosureManifest): ReadonlySet<StorePath> {
  return new Set(manifest.entries.map(({ path }) => path))
}
