import { createHash, generateKeyPairSync, hash, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  AUDIT_KINDS,
  AUDIT_SEVERITIES,
  auditDerivations,
  derivationGraph,
  derivationPath,
  encodeByteString,
  parseHash,
} from '@bagcheck/nix'
import type { AuditFinding, Derivation, DerivationOutput, ImpurityAudit } from '@bagcheck/nix'
import { flat, Instantiator } from '../derivation/instantiate.ts'
import type { Plan } from '../derivation/instantiate.ts'

const builder = `/nix/store/${'b'.repeat(32)}-bash/bin/bash`

/** The audit of one derivation, without what every fetch has. */
function audit(plan: Partial<Plan>): ImpurityAudit {
  const nix = new Instantiator()
  return auditDerivations(nix.graph(nix.add({ name: 'x', builder, ...plan })))
}

function auditOutput(output: DerivationOutput, env: Readonly<Record<string, string>> = {}) {
  const { derivation } = new Instantiator().add({ name: 'x', builder })
  const altered: Derivation = {
    ...derivation,
    outputs: new Map([['out', output]]),
    env: new Map(Object.entries({ out: '', ...env })),
  }
  const path = derivationPath(altered)
  return auditDerivations(derivationGraph([path], new Map([[path, altered]])))
}

const brief = ({ findings }: ImpurityAudit): string[] =>
  findings.map(({ kind, field, seen }) => `${kind} ${field}: ${seen}`)
const json = (value: unknown): Record<string, string> => ({
  __json: encodeByteString(JSON.stringify(value)),
})
const fixed = flat('content')
const url = 'https://example.org/x.tar.gz'

describe('an audit', () => {
  test('of an ordinary derivation finds nothing', () => {
    const ordinary = {
      buildInputs: `/nix/store/${'a'.repeat(32)}-zlib`,
      HOME: '/homeless-shelter',
      passAsFile: 'text',
      text: 'cp $src /tmp/x; curl https://example.org:443/@scope; mkdir -p /home/user/x ~/Users/x',
      SOURCE_DATE_EPOCH: '315532801',
      configureFlags: '--with-password-store --token',
      outputHashes: 'sha256:xyz',
      tokenFile: '/run/secrets/token',
      apiKey: '$API_KEY',
      doCheck: '1',
      mail: 'https://example.org/@user:1',
    }
    expect(brief(audit({ env: ordinary }))).toEqual([])
    expect(brief(audit({ env: json({ ...ordinary, nested: [ordinary] }) }))).toEqual([])
  })

  test('looks at a variable that has the name of an output, too', () => {
    const output = { kind: 'floating', method: 'nar', algorithm: 'sha256' } as const
    const secret = `ghp_${'a1B2'.repeat(9)}`
    expect(brief(auditOutput(output, { out: secret }))).toContain('secret env.out: a GitHub token')
  })

  test.each<[string, Partial<Plan>, string[]]>([
    ['__noChroot', { env: { __noChroot: '1' } }, ['no-chroot env.__noChroot: true']],
    [
      'structured __noChroot',
      { env: json({ __noChroot: true }) },
      ['no-chroot __json.__noChroot: true'],
    ],
    ['__noChroot that is off', { env: { __noChroot: '' } }, []],
    [
      'a builder that leaves the store',
      { builder: '/nix/store/../../bin/sh' },
      ['host-builder builder: /nix/store/../../bin/sh'],
    ],
    ['a builder of the host', { builder: '/bin/sh' }, ['host-builder builder: /bin/sh']],
    [
      'a builtin builder',
      { builder: 'builtin:fetchurl' },
      ['builtin-builder builder: builtin:fetchurl'],
    ],
    [
      'host dependencies',
      { env: { __impureHostDeps: '/usr/lib/a /bin/b' } },
      ['host-dependency env.__impureHostDeps: /usr/lib/a /bin/b'],
    ],
    [
      'variables of the builder, without proxies, of a fetch',
      { fixed, env: { url, impureEnvVars: 'http_proxy NO_PROXY NETRC TOKEN' } },
      [
        'impure-environment env.impureEnvVars: NETRC TOKEN',
        `fixed-output env.url: sha256 from example.org: ${url}`,
      ],
    ],
    ['variables that Nix ignores', { env: { impureEnvVars: 'TOKEN' } }, []],
    [
      'a fetch without transport security',
      { fixed, env: { urls: 'mirror://gnu/a http://example.org/a git@example.org:a/b' } },
      [
        'insecure-url env.urls: http://example.org/a',
        'fixed-output env.urls: sha256 from mirror://gnu: mirror://gnu/a',
        'fixed-output env.urls: sha256 from example.org: http://example.org/a',
        'fixed-output env.urls: sha256 from example.org: git@example.org:a/b',
      ],
    ],
    [
      'a fetch from nobody knows where',
      { fixed },
      ['unknown-origin outputs.out: sha256 from no url'],
    ],
    [
      'a weak hash',
      { fixed: { method: 'nar', hash: parseHash(`md5:${'0'.repeat(32)}`) }, env: { url } },
      [
        `weak-hash outputs.out: fixed:r:md5:${'0'.repeat(26)}`,
        `fixed-output env.url: r:md5 from example.org: ${url}`,
      ],
    ],
    [
      'features',
      { env: { requiredSystemFeatures: 'big-parallel kvm recursive-nix' } },
      [
        'recursive-nix env.requiredSystemFeatures: recursive-nix',
        'system-features env.requiredSystemFeatures: kvm',
      ],
    ],
    [
      'references that are discarded',
      { env: json({ unsafeDiscardReferences: { out: true, dev: false } }) },
      ['discarded-references __json.unsafeDiscardReferences: out'],
    ],
    [
      'an embedded closure',
      { env: { exportReferencesGraph: `closure /nix/store/${'a'.repeat(32)}-x` } },
      ['embedded-closure env.exportReferencesGraph: closure'],
    ],
    [
      'a structured embedded closure, and limits of references',
      { env: json({ exportReferencesGraph: { image: [] }, outputChecks: {} }) },
      [
        'embedded-closure __json.exportReferencesGraph: image',
        'reference-limits __json.outputChecks: set',
      ],
    ],
    [
      'no substitutes',
      { env: { allowSubstitutes: '' } },
      ['no-substitutes env.allowSubstitutes: false'],
    ],
    [
      'paths of a machine',
      {
        env: {
          src: '/home/alice/project',
          b: 'x=/Users/bob',
          c: '/tmp/nix-shell/x',
          d: '/root/work',
        },
        args: ['/home/alice/build.sh'],
      },
      [
        'host-path args[0]: /home/alice',
        'host-path env.b: /Users/bob',
        'host-path env.c: /tmp/nix-shell/',
        'host-path env.d: /root/work',
        'host-path env.src: /home/alice',
      ],
    ],
    [
      'moments',
      {
        env: { buildDate: '2026-11-24T10:00:00Z', time: '1795514400', lastModified: '1795514400' },
      },
      ['build-date env.buildDate: 2026-11-24T10:00:00Z', 'build-date env.time: 1795514400'],
    ],
  ])('finds %s', (_, plan, expected) => {
    expect(brief(audit(plan))).toEqual(expected)
  })

  test('finds impure, floating and deferred outputs', () => {
    expect(brief(auditOutput({ kind: 'impure', method: 'nar', algorithm: 'sha256' }))).toEqual([
      'impure-output outputs.out: r:sha256',
    ])
    expect(brief(auditOutput({ kind: 'floating', method: 'nar', algorithm: 'sha1' }))).toEqual([
      'weak-hash outputs.out: r:sha1',
      'unknown-output outputs.out: r:sha1',
    ])
    expect(brief(auditOutput({ kind: 'deferred' }))).toEqual([
      'unknown-output outputs.out: deferred',
    ])
  })

  test('counts, sorts and says why; every kind has a reason', () => {
    const nix = new Instantiator()
    const source = nix.add({ name: 'src', builder, fixed, env: { url } })
    const other = nix.add({ name: 'src2', builder, fixed: flat('2'), env: { url } })
    const root = nix.add({ name: 'x', inputs: [source, other], env: { __noChroot: '1' } })
    const found = auditDerivations(nix.graph(root))
    expect(found).toMatchObject({
      schema: 'bagcheck.impurity-audit/v1',
      roots: [root.path],
      derivations: 3,
      fixedOutputs: 2,
      hosts: [{ host: 'example.org', derivations: 2 }],
      counts: { high: 1, medium: 1, low: 0, info: 2 },
    })
    expect(found.findings.map(({ severity }) => severity)).toEqual([
      'high',
      'medium',
      'info',
      'info',
    ])
    expect(found.findings[0]).toEqual({
      kind: 'no-chroot',
      severity: 'high',
      derivation: root.path,
      name: 'x',
      field: 'env.__noChroot',
      seen: 'true',
      why: AUDIT_KINDS['no-chroot'][1],
    } satisfies AuditFinding)
    for (const [severity, why] of Object.values(AUDIT_KINDS)) {
      expect(AUDIT_SEVERITIES).toContain(severity)
      expect(why.length).toBeGreaterThan(30)
    }
  })
})

/** Characters that look like a token's; made at run time, so that no scanner takes this file for a leak. */
const random = (characters: number): string =>
  createHash('sha512').update(`${characters}`).digest('hex').repeat(3).slice(0, characters)

function nixSigningKey(): string {
  const { privateKey, publicKey } = generateKeyPairSync('ed25519')
  const seed = privateKey.export({ format: 'der', type: 'pkcs8' }).subarray(-32)
  const point = publicKey.export({ format: 'der', type: 'spki' }).subarray(-32)
  return Buffer.concat([seed, point]).toString('base64')
}

const { privateKey } = generateKeyPairSync('ec', {
  namedCurve: 'P-256',
  privateKeyEncoding: { format: 'pem', type: 'pkcs8' },
  publicKeyEncoding: { format: 'pem', type: 'spki' },
})

describe('a secret', () => {
  const secrets: [string, string][] = [
    ['a private key', privateKey],
    ['a private key', JSON.stringify({ key: privateKey })],
    ['an AWS access key', `AK${'IA'}${random(16).toUpperCase()}`],
    ['a GitHub token', `gh${'p_'}${random(36)}`],
    ['a GitLab token', `gl${'pat-'}${random(20)}`],
    ['a Slack token', `xo${'xb-'}123456789012-${random(24)}`],
    ['an npm token', `np${'m_'}${random(36)}`],
    ['a Stripe key', `sk${'_live_'}${random(24)}`],
    ['a Google API key', `AI${'za'}${random(35)}`],
    ['a JSON web token', `ey${'J'}${random(20)}.ey${'J'}${random(40)}.${random(43)}`],
    ['an age secret key', `AGE-SECRET${'-KEY-1'}${random(58).toUpperCase()}`],
    ['a PyPI token', `pypi-${'AgEIcHlwaS5vcmc'}${random(60)}`],
    ['a Nix signing key', `cache.example.org-1:${nixSigningKey()}`],
  ]

  test.each(secrets)('is found and not shown: %s', (what, secret) => {
    for (const text of [secret, `curl -H "x: ${secret}" https://example.org\n`]) {
      for (const plan of [
        { env: { config: text } },
        { args: ['-c', text] },
        { env: json({ deep: [{ config: text }] }) },
        { fixed, env: { url: `https://example.org/${text}` } },
      ]) {
        const found = audit(plan)
        expect(found.findings.find(({ kind }) => kind === 'secret')).toMatchObject({ seen: what })
        const shown = JSON.stringify(found)
        const core = secret.replace(/^.*?:/, '').slice(4, 20)
        expect(shown).not.toContain(core)
      }
    }
  })

  test('of a signature is none: only a key holds its own public key', () => {
    const signature = randomBytes(64).toString('base64')
    expect(brief(audit({ env: { sig: `cache.example.org-1:${signature}` } }))).toEqual([])
  })

  test.each([
    ['the example of AWS', 'AKIAIOSFODNN7EXAMPLE'],
    ['a header without key', 'grep -q "-----BEGIN PRIVATE KEY-----" $file'],
    ['a public key', '-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n'],
    ['a store path', `/nix/store/${'a'.repeat(32)}-ghp_${'a'.repeat(10)}`],
    ['a hash', `sha256-${hash('sha256', 'x', 'base64')}`],
    ['a user without password', 'ssh://git@example.org/x'],
    ['a port', 'https://example.org:8443/x@1'],
    ['the URL of a manual', 'https://user:password@example.org'],
    ['a URL that a script completes', 'https://$user:$password@example.org https://x:${token}@a.b'],
    ['a short parameter', 'https://example.org/?token=1'],
  ])('is not seen in %s', (_, text) => {
    expect(brief(audit({ env: { text } }))).toEqual([])
  })

  test('in a URL is found, and the URL is shown without it', () => {
    const parameter = `https://example.org/a?x=1&token=${random(24)}&y=2`
    for (const [text, shown] of [
      ['git clone https://alice:hunter22@example.org/x.git here', 'https://…@example.org/x.git'],
      [parameter, 'https://example.org/a?x=1&token=…&y=2'],
      [`"${parameter}"`, 'https://example.org/a?x=1&token=…&y=2'],
    ] as const)
      expect(brief(audit({ env: { text } }))).toEqual([`url-credentials env.text: ${shown}`])
    expect(brief(audit({ fixed, env: { url: 'https://alice:hunter22@example.org/x' } }))).toEqual([
      'url-credentials env.url: https://…@example.org/x',
      'fixed-output env.url: sha256 from example.org: https://…@example.org/x',
    ])
  })

  test('by its name is possible, unless the value is a path, a reference or a switch', () => {
    for (const [name, value] of [
      ['DB_PASSWORD', 'correct-horse'],
      ['apiKey', 'k3yk3yk3y-abc'],
    ] as const) {
      const seen = `${value.length} characters`
      expect(brief(audit({ env: { [name]: value } }))).toEqual([
        `possible-secret env.${name}: ${seen}`,
      ])
      expect(brief(audit({ env: json({ a: { [name]: [value] } }) }))).toEqual([
        `possible-secret __json.a.${name}[0]: ${seen}`,
      ])
    }
    for (const value of [
      '/run/keys/x',
      '$PASSWORD',
      '@password@',
      'true',
      '12345',
      'https://a.b/cdef',
      'two words',
    ])
      expect(brief(audit({ env: { password: value } }))).toEqual([])
  })

  test('in hashed form is a finding of its own', () => {
    for (const crypted of [
      `$6$rounds=5000$saltsalt$${random(86)}`,
      `$6$saltsalt$${random(86)}`,
      `$y$j9T$saltsalt$${random(43)}`,
      `$2b$12$${random(53)}`,
    ])
      expect(brief(audit({ env: { users: `root:${crypted}:1::::::\n` } }))).toEqual([
        'password-hash env.users: a crypt(3) hash',
      ])
  })
})

describe('any text', () => {
  test('is audited in time proportional to its length', () => {
    const long = 2_000_000
    for (const unit of [
      'a',
      '-',
      '/',
      ':',
      '://',
      'eyJ',
      '-eyJaaaaaaaaaaaa',
      '://a:',
      '/home/',
      '$6$a',
      '?token=',
      'x:',
    ])
      audit({ env: { text: unit.repeat(long / unit.length), password: unit.repeat(100) } })
  }, 60_000)

  test('has no bound on how much it finds in one derivation', () => {
    const paths = Array.from({ length: 150_000 }, () => '/home/joe/x')
    expect(audit({ env: json({ paths }) }).counts.medium).toBe(150_000)
  })

  test('gives findings that are well formed', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), fc.jsonValue(), (text, value) => {
        const attributes = { impureEnvVars: value, url: value, unsafeDiscardReferences: value }
        const exported = { exportReferencesGraph: value, requiredSystemFeatures: value }
        for (const env of [
          { text: encodeByteString(text.replaceAll('\0', '')) },
          { __json: encodeByteString(text.replaceAll('\0', '')) },
          json({ ...attributes, ...exported, __noChroot: value }),
        ])
          for (const one of audit({ fixed, env }).findings) {
            expect(AUDIT_KINDS[one.kind]).toBeDefined()
            expect(one.field).not.toBe('')
          }
      }),
    )
  })
})
