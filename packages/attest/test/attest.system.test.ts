// A real build by real Nix, attested and verified.
import { writeFileSync } from 'node:fs'
import {
  buildFileList,
  hashNar,
  openNixDatabase,
  parseFileList,
  parseManifest,
  readClosure,
  sha256Hex,
} from '@bagcheck/nix'
import type { ClosureManifest, FileList, StorePath } from '@bagcheck/nix'
import { nixAvailable, nixBuild, nixEnvironment, runNix, shellDerivation } from '@bagcheck/testkit'
import { beforeAll, describe, expect, test } from 'vitest'
import {
  bindContent,
  collectBuildFacts,
  createClosureAttestation,
  generateSigningKey,
  parseBundle,
  verifyClosureAttestation,
  type ClosureFacts,
} from '../src/index.ts'
import { codeOf } from './code-of.ts'

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))
const library = shellDerivation('library-2.1', 'mkdir $out; echo library > $out/lib.txt')
const service = (version: string): string =>
  shellDerivation(
    `service-${version}`,
    `mkdir -p $out/bin; echo ${version} $library > $out/bin/service; chmod +x $out/bin/service`,
    { library },
  )

describe.skipIf(!nixAvailable())('a closure that Nix built', () => {
  const key = generateSigningKey().signing
  const nix = { environment: nixEnvironment() }
  let root: StorePath
  let manifest: ClosureManifest
  let files: FileList
  let facts: ClosureFacts

  beforeAll(async () => {
    root = nixBuild(service('1.0'))
    manifest = await readFromDatabase(root)
    files = await buildFileList(manifest)
    facts = await collectBuildFacts(manifest, { nix, impure: true })
  })

  test('has its facts read from Nix, the store and the derivation', () => {
    const drvPath = runNix('nix-store', ['--query', '--deriver', root]).trim()
    expect(facts.drvPath.value).toBe(drvPath)
    expect(facts.output).toEqual({ value: 'out', source: 'derivation' })
    expect(facts.system.value).toMatch(/-linux$/)
    expect(facts.build.sandbox).toEqual({ value: true, source: 'nix show-config' })
    expect(facts.build.sandboxFallback).toEqual({ value: false, source: 'nix show-config' })
    expect(facts.build.impure).toEqual({ value: true, source: 'given by the caller' })
    expect(facts.build.nixVersion.value).toMatch(/^\d+\.\d+/)
    expect(facts.build.builtLocally).toEqual({ value: 2, source: 'nix database' })
    expect(facts.build.substituted).toEqual({ value: 0, source: 'nix database' })
    expect(facts.flake.rev).toEqual({ value: null, source: 'unknown' })
  })

  test('is attested, verified, and bound to its manifest and files read back as text', async () => {
    const made = createClosureAttestation({ manifest, files, facts, key })
    const verified = verifyClosureAttestation(parseBundle(bytes(made.bundle)), [key])
    expect(verified.root).toBe(root)
    expect(verified.rootNarHash).toBe((await hashNar(root)).narHash)
    expect(verified.closureDigest).toBe(sha256Hex(manifest.text))
    bindContent(verified, parseManifest(bytes(manifest.text)), parseFileList(bytes(files.text)))
  })

  test('is not the next version: neither manifest nor files pass for its own', async () => {
    const made = createClosureAttestation({ manifest, files, facts, key })
    const verified = verifyClosureAttestation(made.envelope, [key])
    const next = await readFromDatabase(nixBuild(service('1.1')))
    const nextFiles = await buildFileList(next)
    expect(codeOf(() => bindContent(verified, next, nextFiles))).toBe('ATTESTATION_CONTENT')
    expect(codeOf(() => bindContent(verified, manifest, nextFiles))).toBe('ATTESTATION_CONTENT')
  })

  test('has no known derivation once that was altered in the store', async () => {
    const drvPath = facts.drvPath.value
    if (drvPath === null) throw new TypeError('the derivation is known')
    const text = runNix('cat', [drvPath])
    try {
      writeFileSync(drvPath, text.replace('service-1.0', 'service-9.9'))
      const altered = await collectBuildFacts(manifest, { nix })
      expect(altered.drvPath).toEqual({ value: null, source: 'unknown' })
      expect(altered.system).toEqual({ value: null, source: 'unknown' })
    } finally {
      writeFileSync(drvPath, text)
    }
  })
})

async function readFromDatabase(root: StorePath): Promise<ClosureManifest> {
  const database = openNixDatabase()
  try {
    return await readClosure(database, root)
  } finally {
    await database.close()
  }
}
