// What a broker keeps of attested closures, and how two of them are compared for people.
import type { VerifiedAttestation } from '@bagcheck/attest'
import {
  filesOfStorePath,
  storePathName,
  storePathOf,
  type ClosureManifest,
  type FileList,
  type ListedFile,
  type Sha256,
} from '@bagcheck/nix'
import type { Nearest } from './denial.ts'
import { show } from './error.ts'
import type { Facts, MappedFile } from './facts.ts'
import type { IndexedRole } from './role-index.ts'

/** A closure whose attestation was verified and bound to this manifest and file list. */
export interface AttestedClosure {
  readonly attestation: VerifiedAttestation
  readonly manifest: ClosureManifest
  readonly files: FileList
}

/** Attested closures by closure digest. */
export interface ClosureIndex {
  /**
   * The newest attestation of a closure by a signer whom `accepts` takes (by key id), and only if there is
   * none the newest of all: one by somebody whom a role does not trust must not hide one by whom it does.
   */
  get(digest: Sha256, accepts?: (keyId: string) => boolean): AttestedClosure | undefined
}

/** Denials are frequent and must stay cheap: so many approved closures are looked at, by their manifests. */
const MAX_COMPARED = 32

/** The approved closure of a role that shares most with what runs; undefined if none is attested. */
export function nearestApproved(
  { roots }: IndexedRole,
  facts: Facts,
  closures: ClosureIndex,
): Nearest | undefined {
  const running = facts.roots.map(({ closureDigest }) => closures.get(closureDigest)).find(Boolean)
  const rootName = facts.roots[0] && packageName(storePathName(facts.roots[0].root))
  const same: AttestedClosure[] = []
  const others: AttestedClosure[] = []
  for (const { closure, root, state } of roots.values()) {
    if (same.length === MAX_COMPARED) break
    if (state !== 'active') continue
    const list = packageName(storePathName(root)) === rootName ? same : others
    if (list.length === MAX_COMPARED) continue
    const attested = closures.get(closure)
    if (attested) list.push(attested)
  }
  const paths = running && new Set(running.manifest.entries.map(({ path }) => path))
  let best: AttestedClosure | undefined
  let most = -1
  for (const closure of [...same, ...others].slice(0, MAX_COMPARED)) {
    const shared = paths
      ? closure.manifest.entries.filter(({ path }) => paths.has(path)).length
      : mappedFiles(facts).filter((file) => isListed(closure, file)).length
    if (shared > most) [best, most] = [closure, shared]
  }
  if (!best) return undefined
  const { root, closureDigest } = best.attestation
  const firstDifference = running ? compare(best, running) : compareMapped(best, facts)
  return { root, closureDigest, firstDifference }
}

/**
 * One sentence on the first file that differs, by package name and file: store paths of two versions have
 * nothing in common. Paths that both closures hold are not read.
 */
function compare(approved: AttestedClosure, running: AttestedClosure): string {
  const wantedFiles = filesByPackage(approved, running)
  const seenFiles = filesByPackage(running, approved)
  for (const name of [...new Set([...wantedFiles.keys(), ...seenFiles.keys()])].toSorted()) {
    const wanted = wantedFiles.get(name)
    const seen = seenFiles.get(name)
    if (wanted && seen && wanted.sha256 !== seen.sha256)
      return `${show(seen.path)} differs from ${show(wanted.path)}`
    if (seen && !wanted) return `${show(seen.path)} is new`
    if (wanted && !seen) return `${show(wanted.path)} is missing`
  }
  return 'the files are the same, and the closures differ in links or references'
}

/** Files of the store paths that `other` does not hold, by package name and place in it. */
function filesByPackage(
  { manifest, files }: AttestedClosure,
  other: AttestedClosure,
): Map<string, ListedFile> {
  const shared = new Map(other.manifest.entries.map(({ path, narHash }) => [path, narHash]))
  const found = new Map<string, ListedFile>()
  for (const { path, narHash } of manifest.entries) {
    if (shared.get(path) === narHash) continue
    const name = packageName(storePathName(path))
    for (const file of filesOfStorePath(files, path))
      found.set(`${name}${file.path.slice(path.length)}`, file)
  }
  return found
}

const mappedFiles = ({ processes }: Facts): MappedFile[] =>
  processes.flatMap(({ executable, files }) => [executable, ...files])

const isListed = ({ files }: AttestedClosure, { path, sha256 }: MappedFile): boolean =>
  files.byPath.get(path)?.sha256 === sha256

/** What runs was never attested: only what it maps, and what it was started with, is known. */
function compareMapped(approved: AttestedClosure, facts: Facts): string {
  const foreign = mappedFiles(facts).find((file) => !isListed(approved, file))
  const script = facts.unit.contract?.arguments.find(
    (argument) => storePathOf(argument) !== undefined && !approved.files.byPath.has(argument),
  )
  const first = foreign?.path ?? script
  if (first !== undefined) return `${show(first)} is not in it`
  return `it runs from ${show(facts.roots[0]?.root ?? 'another root')}, which nobody attested`
}

/** Nix's own rule: the name ends before the first dash that no letter follows. */
function packageName(name: string): string {
  return name.replace(/-[^A-Za-z].*$/s, '')
}
