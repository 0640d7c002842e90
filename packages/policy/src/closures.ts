// What a broker keeps of attested closures, and how two of them are compared for people.
import type { VerifiedAttestation } from '@bagcheck/attest'
import { type ClosureManifest, type FileList, storePathName, storePathOf } from '@bagcheck/nix'
import type { IndexedRole } from './role-index.ts'
import type { Facts } from './facts.ts'
import type { Nearest } from './denial.ts'

/** A closure whose attestation was verified and bound to this manifest and file list. */
export interface AttestedClosure {
  readonly attestation: VerifiedAttestation
  readonly manifest: ClosureManifest
  readonly files: FileList
}

/** Attested closures by closure digest. */
export interface ClosureIndex {
  get(digest: string): AttestedClosure | undefined
}

/** Comparing reads whole file lists, so only so many approved closures are looked at. */
const MAX_COMPARED = 32

/** The approved closure of a role that shares most with what runs; undefined if none is attested. */
export function nearestApproved(
  { roots }: IndexedRole,
  facts: Facts,
  closures: ClosureIndex,
): Nearest | undefined {
  const running = facts.roots.map(({ closureDigest }) => closures.get(closureDigest)).find(Boolean)
  const rootName = facts.roots[0] && packageName(storePathName(facts.roots[0].root))
  const candidates = [...roots.values()]
    .filter(({ state }) => state === 'active')
    .toSorted((a, b) => Number(named(b.root, rootName)) - Number(named(a.root, rootName)))
    .slice(0, MAX_COMPARED)
    .flatMap(({ closure }) => closures.get(closure) ?? [])
  const compared = candidates.map((closure) => ({
    closure,
    ...(running ? compare(closure, running) : compareMapped(closure, facts)),
  }))
  const best = compared.toSorted((a, b) => b.shared - a.shared)[0]
  if (!best) return undefined
  const { attestation } = best.closure
  return {
    root: attestation.root,
    closureDigest: attestation.closureDigest,
    firstDifference: best.first,
  }
}

interface Comparison {
  readonly shared: number
  /** One sentence. */
  readonly first: string
}

/** Compares by package name and file, because store paths of two versions have nothing in common. */
function compare(approved: AttestedClosure, running: AttestedClosure): Comparison {
  const approvedFiles = byPackage(approved.files)
  const runningFiles = byPackage(running.files)
  const names = [...new Set([...approvedFiles.keys(), ...runningFiles.keys()])].toSorted()
  let shared = 0
  let first: string | undefined
  for (const name of names) {
    const wanted = approvedFiles.get(name)
    const seen = runningFiles.get(name)
    if (wanted && seen && wanted.sha256 === seen.sha256) shared += 1
    else if (first === undefined && wanted && seen)
      first = `${seen.path} differs from ${wanted.path}`
    else if (first === undefined)
      first = seen ? `${seen.path} is new` : `${wanted?.path ?? name} is missing`
  }
  return {
    shared,
    first: first ?? 'the files are the same, and the closures differ in their references',
  }
}

/** What runs was never attested: only what it maps is known. */
function compareMapped(approved: AttestedClosure, facts: Facts): Comparison {
  const mapped = facts.processes.flatMap(({ executable, files }) => [executable, ...files])
  const script = facts.unit.contract?.arguments.find(
    (argument) => storePathOf(argument) !== undefined,
  )
  const foreign = mapped.find(
    ({ path, sha256 }) => approved.files.byPath.get(path)?.sha256 !== sha256,
  )
  const first =
    foreign?.path ??
    (script !== undefined && !approved.files.byPath.has(script) ? script : undefined)
  return {
    shared: mapped.length - (foreign ? 1 : 0),
    first:
      first === undefined
        ? `it runs from ${facts.roots[0]?.root ?? 'another root'}, which nobody attested`
        : `${first} is not in it`,
  }
}

function byPackage({ files }: FileList): Map<string, FileList['files'][number]> {
  return new Map(
    files.map((file) => {
      const path = storePathOf(file.path)
      const name = path === undefined ? '' : packageName(storePathName(path))
      return [`${name}${file.path.slice(path?.length ?? 0)}`, file]
    }),
  )
}

/** Nix's own rule: the name ends before the first dash that no letter follows. */
function packageName(name: string): string {
  return name.replace(/-[^A-Za-z].*$/s, '')
}

const named = (root: string, name: string | undefined): boolean =>
  packageName(root.slice(root.indexOf('-') + 1)) === name
