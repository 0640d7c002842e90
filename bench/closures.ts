// Attested closures of services: a runtime, libraries and a script. The content of made-up ones exists
// nowhere, but manifest, file list and attestation are complete and signed, which is all that broker and
// policy see.
import { hash } from 'node:crypto'
import type { SigningKey } from '@bagcheck/attest'
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
import { attestClosure } from '../packages/testkit/src/index.ts'

/** Libraries of a service; with its executable, 12 mapped files. */
const LIBRARIES = 11
const FILES_PER_LIBRARY = 100

/** A closure that was attested. */
export interface Attested {
  /** Also the name of its unit. */
  readonly name: string
  readonly root: StorePath
  /** What policy says of its entry. */
  readonly entry: {
    readonly executable: string
    readonly script: string
    readonly arguments: readonly string[]
  }
  readonly closure: AttestedClosure
  /** Body of `POST /v1/attestations`. */
  readonly submission: {
    readonly bundle: string
    readonly manifest: string
    readonly files: string
  }
}

/** A made-up service. */
export interface Service extends Attested {
  readonly executable: ListedFile
  readonly script: ListedFile
  /** What its process maps beside the executable. */
  readonly libraries: readonly ListedFile[]
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

/** So many services, for `createInstallation`. */
export const services =
  (count: number) =>
  (key: SigningKey): Service[] =>
    Array.from({ length: count }, (_, index) => attestService(`service-${index}`, key))

/** Makes the service called `name`, attested by `key`. */
function attestService(name: string, key: SigningKey): Service {
  const runtime = storePath('runtime-24.1')
  const root = storePath(`${name}-1.0`)
  const libraryPaths = Array.from({ length: LIBRARIES }, (_, index) => storePath(`lib${index}-1.0`))
  const executable = file(`${runtime}/bin/node`, true)
  const script = file(`${root}/lib/service.mjs`, false)
  const libraries = libraryPaths.map((path) => file(`${path}/lib/library.so`, true))
  const others = libraryPaths.flatMap((path) =>
    Array.from({ length: FILES_PER_LIBRARY }, (_, index) => file(`${path}/share/${index}`, false)),
  )
  const info = (path: StorePath, references: readonly StorePath[]): PathInfo => ({
    path,
    narHash: narHashFromDigest(Buffer.from(hash('sha256', path), 'hex')),
    narSize: 4096,
    references,
  })
  const manifest = buildManifest(root, [
    info(root, [runtime, root]),
    info(runtime, libraryPaths),
    ...libraryPaths.map((path) => info(path, [])),
  ])
  const files = makeFileList([executable, script, ...libraries, ...others])
  const entry = {
    executable: 'runtime-*/bin/node',
    script: 'service-*/lib/service.mjs',
    arguments: ['--jitless', '{script}'],
  }
  return { ...attest({ name, entry, manifest, files }, key), executable, script, libraries }
}

/** Attests a closure, with the build facts that the policy demands. */
export function attest(
  content: Pick<Attested, 'name' | 'entry'> & Pick<AttestedClosure, 'manifest' | 'files'>,
  key: SigningKey,
): Attested {
  const { name, entry } = content
  const { request: submission, ...closure } = attestClosure(content, key)
  return { name, root: closure.attestation.root, entry, closure, submission }
}
