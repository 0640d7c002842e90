import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { narHashFromDigest, sha256Hex } from '@bagcheck/nix'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import {
  UNKNOWN,
  UNKNOWN_FACTS,
  collectBuildFacts,
  createProvenance,
  generateSigningKey,
  parseBundle,
  parseEnvelopeLines,
  readFlakeInputs,
  verifyStatement,
  SLSA_PROVENANCE_V1,
} from '../src/index.ts'
import { codeOf } from './code-of.ts'
import { smallClosure } from './small-closure.ts'

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text))
const { manifest, files } = smallClosure()
const narHash = narHashFromDigest(new Uint8Array(32))
const rev = '0123456789abcdef0123456789abcdef01234567'
const lock = {
  version: 7,
  root: 'root',
  nodes: {
    root: {
      inputs: { nixpkgs: 'nixpkgs', tools: 'tools', local: 'local', same: ['tools', 'nixpkgs'] },
    },
    tools: {
      inputs: { nixpkgs: 'nixpkgs' },
      locked: { type: 'git', url: 'https://user:secret@git.test/tools', rev, narHash },
      original: { type: 'git', url: 'https://git.test/tools' },
    },
    nixpkgs: {
      locked: { type: 'github', owner: 'NixOS', repo: 'nixpkgs', rev, narHash, lastModified: 1 },
      original: { type: 'indirect', id: 'nixpkgs' },
    },
    local: {
      locked: { type: 'path', path: './local' },
      original: { type: 'path', path: './local' },
      parent: [],
    },
    unused: {
      locked: { type: 'path', path: '/unused', narHash },
      original: { type: 'path', path: '/unused' },
    },
  },
}
const lockBytes = bytes(JSON.stringify(lock))

describe('a flake.lock', () => {
  test('gives the inputs that it reaches by name, without passwords', () => {
    const nothing = { rev: null, narHash: null, lastModified: null }
    expect(readFlakeInputs(lockBytes)).toEqual([
      { ...nothing, name: 'local', url: 'path:./local' },
      { name: 'nixpkgs', url: 'github:NixOS/nixpkgs', rev, narHash, lastModified: 1 },
      { ...nothing, name: 'tools', url: 'git+https://git.test/tools', rev, narHash },
    ])
  })

  const withNode = (locked: object): string =>
    JSON.stringify({
      ...lock,
      nodes: { ...lock.nodes, nixpkgs: { ...lock.nodes.nixpkgs, locked: { narHash, ...locked } } },
    })
  test.each([
    ['of unknown type', { type: 'carrier-pigeon', url: 'x' }],
    ['without owner', { type: 'github', repo: 'x' }],
    ['with a URL that is a number', { type: 'git', url: 1 }],
    ['with a revision that is a number', { type: 'path', path: '/x', rev: 1 }],
    ['with a time that is text', { type: 'path', path: '/x', lastModified: '1' }],
  ])('with an input %s is refused: it could not be stated', (_claim, locked) => {
    expect(codeOf(() => readFlakeInputs(bytes(withNode(locked))))).toBe('FLAKE_LOCK')
  })

  test.each([
    ['of version 8', 'FLAKE_LOCK_VERSION', JSON.stringify({ ...lock, version: 8 })],
    ['without its root', 'FLAKE_LOCK_INPUT', JSON.stringify({ ...lock, root: 'none' })],
    ['with a hash that is none', 'FLAKE_LOCK_NODE', withNode({ type: 'path', narHash: 'x' })],
    ['with a member twice', 'JSON_DUPLICATE_KEY', '{"version":7,"version":7}'],
  ])('%s is refused as @bagcheck/nix refuses it', (_claim, code, text) => {
    expect(() => readFlakeInputs(bytes(text))).toThrow(expect.objectContaining({ code }))
  })
})

describe('build facts', () => {
  let directory = ''
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'attest-'))
  })
  afterAll(() => {
    rmSync(directory, { recursive: true })
  })

  // A program that answers as Nix would; real Nix is asked in the system test.
  function nixThatSays(name: string, settings: string, version = 'nix (Nix) 2.34.1'): string {
    const program = join(directory, name)
    const script = `#!/bin/sh\ncase "$*" in\n*--version) echo '${version}';;\n*show-config*) cat <<'END'\n${settings}\nEND\n;;\nesac\n`
    writeFileSync(program, script)
    chmodSync(program, 0o755)
    return program
  }
  const settings = (values: Readonly<Record<string, unknown>>): string =>
    JSON.stringify(Object.fromEntries(Object.entries(values).map(([k, value]) => [k, { value }])))

  test('are unknown where nobody can answer', async () => {
    const facts = await collectBuildFacts(manifest, { nix: { program: join(directory, 'none') } })
    expect(facts).toEqual(UNKNOWN_FACTS)
  })

  test('are what Nix says of itself, with passwords taken out', async () => {
    const program = nixThatSays(
      'plain',
      settings({
        sandbox: true,
        'sandbox-fallback': false,
        substituters: ['https://user:secret@cache.test/x', 'https://cache.test'],
        'trusted-public-keys': ['cache-1:AAAA'],
        'require-sigs': true,
        'max-free': 9223372036854776000,
        store: 'local',
      }),
    )
    const { build } = await collectBuildFacts(manifest, { nix: { program } })
    const source = 'nix show-config'
    expect(build).toEqual({
      ...UNKNOWN_FACTS.build,
      sandbox: { value: true, source },
      sandboxFallback: { value: false, source },
      substituters: { value: ['https://cache.test/x', 'https://cache.test'], source },
      trustedPublicKeys: { value: ['cache-1:AAAA'], source },
      requireSigs: { value: true, source },
      nixVersion: { value: '2.34.1', source: 'nix --version' },
    })
  })

  test('say so when they are those of a client of a daemon', async () => {
    const program = nixThatSays('client', settings({ sandbox: true, store: 'daemon' }))
    const { build } = await collectBuildFacts(manifest, { nix: { program } })
    expect(build.sandbox).toEqual({ value: true, source: 'nix show-config, client of a daemon' })
  })

  test.each([
    ['a sandbox that builds may leave is none', { sandbox: 'relaxed', store: 'local' }, false],
    ['no sandbox is none', { sandbox: false, store: 'local' }, false],
    ['a sandbox of a kind not known is unknown', { sandbox: 'partly', store: 'local' }, null],
    ['a sandbox that is not mentioned is unknown', { store: 'local' }, null],
  ])('%s', async (_claim, values, expected) => {
    const program = nixThatSays('sandbox', settings(values))
    const { build } = await collectBuildFacts(manifest, { nix: { program } })
    expect(build.sandbox.value).toBe(expected)
  })

  test.each([
    ['no JSON', 'warning: no'],
    ['a list', '[]'],
    ['null', 'null'],
    ['settings that are bare', '{"sandbox":true}'],
    ['lists of numbers', '{"substituters":{"value":[1]}}'],
  ])('are unknown where Nix answers %s', async (_claim, text) => {
    const program = nixThatSays('odd', text, 'nix')
    const { build } = await collectBuildFacts(manifest, { nix: { program } })
    expect(build).toEqual(UNKNOWN_FACTS.build)
  })

  test('are unknown where Nix does not answer in time', async () => {
    const program = join(directory, 'slow')
    writeFileSync(program, '#!/bin/sh\nexec sleep 60\n')
    chmodSync(program, 0o755)
    const { build } = await collectBuildFacts(manifest, { nix: { program, timeoutMs: 50 } })
    expect(build).toEqual(UNKNOWN_FACTS.build)
  })

  test('stop when the caller does', async () => {
    const signal = AbortSignal.abort(new Error('enough'))
    await expect(collectBuildFacts(manifest, { nix: { signal } })).rejects.toThrow('enough')
  })

  test('are taken from the caller where only the caller knows, and said to be', async () => {
    const facts = await collectBuildFacts(manifest, {
      nix: { program: join(directory, 'none') },
      flakeLock: lockBytes,
      flake: { url: 'git+https://user:secret@git.test/x', rev, narHash },
      impure: false,
      rebuild: 'match',
      successorOf: [manifest.digest],
    })
    const source = 'given by the caller'
    expect(facts.build.impure).toEqual({ value: false, source })
    expect(facts.build.rebuild).toEqual({ value: 'match', source })
    expect(facts.flake).toEqual({
      url: { value: 'git+https://git.test/x', source },
      rev: { value: rev, source },
      narHash: { value: narHash, source },
      lockDigest: { value: sha256Hex(lockBytes), source: 'flake.lock' },
      inputs: { value: readFlakeInputs(lockBytes), source: 'flake.lock' },
    })
    expect(facts.successorOf).toEqual([{ sha256: manifest.digest }])
  })

  test('count what was built here and what came signed only if the store told', async () => {
    const nix = { program: join(directory, 'none') }
    const [first, second] = manifest.entries
    if (first === undefined || second === undefined) throw new TypeError('two entries')
    const told = {
      ...manifest,
      entries: [
        { ...first, ultimate: true },
        { ...second, ultimate: false, signatures: ['cache-1:AAAA'] },
      ],
    }
    const source = 'nix database'
    const { build } = await collectBuildFacts(told, { nix })
    expect(build.builtLocally).toEqual({ value: 1, source })
    expect(build.substituted).toEqual({ value: 1, source })
    expect((await collectBuildFacts(manifest, { nix })).build.substituted).toEqual(UNKNOWN)
  })
})

describe('SLSA provenance', () => {
  const key = generateSigningKey().signing
  const builderId = 'https://ci.test/builder/v1'
  const given = (value: string) => ({ value, source: 'given by the caller' })

  test('is about the same subjects and names the inputs by commit', () => {
    const facts = {
      ...UNKNOWN_FACTS,
      flake: {
        ...UNKNOWN_FACTS.flake,
        url: given('github:acme/orders'),
        rev: given(rev),
        inputs: { value: readFlakeInputs(lockBytes), source: 'flake.lock' },
      },
    }
    const made = createProvenance({ manifest, files, facts, key, builderId, attribute: 'orders' })
    for (const envelope of [
      parseBundle(bytes(made.bundle)),
      ...parseEnvelopeLines(bytes(made.intotoJsonl)),
    ]) {
      const { statement } = verifyStatement(envelope, [key], 1, SLSA_PROVENANCE_V1)
      expect(statement.subject.map(({ name }) => name)).toEqual([manifest.root, 'closure.manifest'])
      expect(statement.predicate).toMatchObject({
        buildDefinition: {
          buildType: 'https://bagcheck.dev/buildtypes/nix-flake/v1',
          externalParameters: { flakeRef: 'github:acme/orders', attr: 'orders' },
          resolvedDependencies: [
            { name: 'self', uri: 'git+https://github.com/acme/orders', digest: { gitCommit: rev } },
            { name: 'local', uri: 'path:./local' },
            {
              name: 'nixpkgs',
              uri: 'git+https://github.com/NixOS/nixpkgs',
              annotations: { narHash },
            },
            { name: 'tools', uri: 'git+https://git.test/tools' },
          ],
        },
        runDetails: { builder: { id: builderId } },
      })
    }
  })

  test('leaves out what is unknown', () => {
    const made = createProvenance({ manifest, files, facts: UNKNOWN_FACTS, key, builderId })
    expect(made.statement.predicate).toMatchObject({
      buildDefinition: {
        buildType: 'https://bagcheck.dev/buildtypes/nix-derivation/v1',
        externalParameters: {},
        internalParameters: {},
        resolvedDependencies: [],
      },
    })
  })

  test('needs a builder with a URI', () => {
    const input = { manifest, files, facts: UNKNOWN_FACTS, key, builderId: 'ci' }
    expect(() => createProvenance(input)).toThrow(TypeError)
  })
})
