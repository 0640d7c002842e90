// Attested closures of made-up services: a runtime, libraries and a script. Their content exists nowhere,
// but manifest, file list and attestation are complete and signed, which is all that broker and policy see.
import { hash } from 'node:crypto'
import {
  createClosureAttestation,
  UNKNOWN_FACTS,
  verifyClosureAttestation,
  type SigningKey,
} from '@bagcheck/attest'
import {
  buildManifest,
  encodeNix32,
  makeFileList,
  narHashFromDigest,
  parseStorePath,
  sha256Hex,
  type ListedFile,
  type PathInfo,
  type StorePath,
} from '@bagcheck/nix'
import type { AttestedClosure } from '@bagcheck/policy'

/** Libraries of a service; with its executable, 12 mapped files. */
const LIBRARIES = 11
const FILES_PER_LIBRARY = 100

/** A service with its attested closure. */
export interface Service {
  /** Also the name of its unit. */
  readonly name: string
  readonly root: StorePath
  readonly executable: ListedFile
  readonly script: ListedFile
  /** What its process maps beside the executable. */
  readonly libraries: readonly ListedFile[]
  readonly closure: AttestedClosure
  /** Body of `POST /v1/attestations`. */
  readonly submission: {
    readonly bundle: string
    readonly manifest: string
    readonly files: string
  }
}

/** A store path that is as good as any. */
export function storePath(name: string): StorePath {
  const digest = Buffer.from(hash('sha256', name), 'hex').subarray(0, 20)
  return parseStorePath(`/nix/store/${encodeNix32(digest)}-${name}`)
}

const file = (path: string, executable: boolean): ListedFile => ({
  path,
  sha256: sha256Hex(path),
  size: path.length,
  executable,
})

/** Makes the service called `name`, attested by `key`. */
export function attestService(name: string, key: SigningKey): Service {
  const runtime = storePath('runtime-24.1')
  const root = storePath(`${name}-1.0`)
  const libraryPaths = Array.from({ length: LIBRARIES }, (_, index) => storePath(`lib${index}-1.0`))
  const executable = file(`${runtime}/bin/node`, true)
  const script = file(`${root}/lib/service.mjs`, false)
  const libraries = libraryPaths.map((path) => file(`${path}/lib/library.so`, true))
  const others = libraryPaths.flatMap((path) =>
    Array.from({ length: FILES_PER_LIBRARY }, (_, index) => file(`${path}/share/${index}`, false)),
  )
  const entry = (path: StorePath, references: readonly StorePath[]): PathInfo => ({
    path,
    narHash: narHashFromDigest(Buffer.from(hash('sha256', path), 'hex')),
    narSize: 4096,
    references,
  })
  const manifest = buildManifest(root, [
    entry(root, [runtime, root]),
    entry(runtime, libraryPaths),
    ...libraryPaths.map((path) => entry(path, [])),
  ])
  const files = makeFileList([executable, script, ...libraries, ...others])
  const fact = (value: boolean) => ({ value, source: 'nix show-config' })
  const build = {
    ...UNKNOWN_FACTS.build,
    sandbox: fact(true),
    sandboxFallback: fact(false),
    impure: fact(false),
  }
  const facts = { ...UNKNOWN_FACTS, build }
  const signed = createClosureAttestation({ manifest, files, facts, key })
  const attestation = verifyClosureAttestation(signed.envelope, [key])
  const closure = { attestation, manifest, files }
  const submission = { bundle: signed.bundle, manifest: manifest.text, files: files.text }
  return { name, root, executable, script, libraries, closure, submission }
}
