import { formatVerifyingKey } from '@bagcheck/attest'
import { sha256Hex } from '@bagcheck/nix'
import { describe, expect, test } from 'vitest'
import { PolicyError, PolicySourceError, compilePolicy, parsePolicy } from '../src/index.ts'
import { HOTFIX, ORDERS, compile, key, orders, policySource, withRole } from './installation.ts'

/** `line:column path: message` of every problem. */
function problemsOf(text: string): string[] {
  try {
    compile(text)
  } catch (error) {
    if (error instanceof PolicySourceError)
      return error.problems.map(({ line, column, message }) => `${line}:${column} ${message}`)
    throw error
  }
  return []
}
const lineOf = (text: string, part: string): number =>
  text.slice(0, text.indexOf(part)).split('\n').length

describe('compiling', () => {
  test('gives the same bytes for the same text, with every default written out', () => {
    const { json, policy } = compile(policySource())
    expect(compile(policySource()).json).toBe(json)
    expect(parsePolicy(json)).toEqual(policy)
    expect(json).toContain('"notBefore":null')
    expect(json).toContain('"capabilities":[]')
    expect(json).toContain('"hosts":{}')
    expect(json).toContain(
      '"allow":{"descriptors":["io-uring"],"hostObjects":[],"jit":[],"namespaces":[]}',
    )
    expect(json).toContain('"boundingSet":null')
    expect(json).toContain('"foreignFiles":null')
    expect(json).toContain('"seccomp":false')
  })

  test('names one mistake for a signer whose key file is missing', () => {
    const readFile = (): string => {
      throw new Error('ENOENT')
    }
    expect(() => compilePolicy(policySource(), { file: 'policy.yaml', readFile })).toThrow(
      expect.objectContaining({
        problems: [
          expect.objectContaining({ message: expect.stringContaining('expected a PEM file') }),
        ],
      }),
    )
  })

  test('does not depend on comments, quotes or the order of keys', () => {
    const text = policySource()
      .replace('schema: bagcheck.policy/v1\n', '')
      .replace('installation: demo', '# who\ninstallation: "demo"\nschema: bagcheck.policy/v1')
    expect(compile(text).json).toBe(compile(policySource()).json)
  })

  test('puts key id and bytes where the source names a file, read by its name', () => {
    const asked: string[] = []
    const { policy } = compilePolicy(policySource(), {
      file: 'policy.yaml',
      readFile: (name) => {
        asked.push(name)
        return formatVerifyingKey(key('ci'))
      },
    })
    expect(asked).toEqual(['keys/ci.pub'])
    expect(policy.signers.get('ci')).toEqual({
      keyId: key('ci').keyId,
      spki: Buffer.from(key('ci').spki).toString('base64'),
    })
  })

  test('says which key file could not be read, and where it is named', () => {
    const read = () =>
      compilePolicy(policySource(), {
        file: 'policy.yaml',
        readFile: () => {
          throw new Error('no such file')
        },
      })
    expect(read).toThrow(/^policy\.yaml:7:\d+: signers\.ci\.key: .*no such file/)
  })

  test('warns of what is allowed but hardly meant', () => {
    const text = policySource(
      ['uid: 990', 'uid: 0'],
      ['sandbox: true', 'sandbox: false'],
      ['profile: api', 'profile: plain'],
    )
    const { warnings } = compile(text)
    expect(warnings.map(({ message }) => message.split(': ')[0])).toEqual([
      'roles.orders.uid',
      'roles.orders.build',
      'roles.orders.audiences["https://api.demo.test"]',
    ])
    expect(compile(policySource()).warnings).toEqual([])
  })

  test('warns of two roles that would be ambiguous for every request', () => {
    const text = policySource()
    const twin = text.slice(text.indexOf('  orders:')).replace('  orders:', '  twin:')
    expect(compile(text + twin).warnings).toMatchObject([
      { message: expect.stringContaining('roles.twin.unit') },
    ])
  })
})

describe('SVIDs', () => {
  const OWN = 'spiffe://demo.bagcheck.test'
  /** The policy with one audience more, of a profile of its own. */
  const withAudience = (uri: string, type: string, more = ''): string =>
    policySource(
      ['roles:', `  svid: { type: ${type} }\nroles:`],
      [
        '    signers: [ci]',
        `      ${uri}: { profile: svid, ${more}minTier: 0, minStrength: full, maxAgeFullSeconds: 60 }\n    signers: [ci]`,
      ],
    )

  test('of X.509 stand under the trust domain, are bound by their key and live for ten minutes', () => {
    const { policy, json, warnings } = compile(withAudience(OWN, 'x509_svid'))
    expect(policy.profiles.get('svid')).toEqual({ type: 'x509_svid', binding: 'certificate' })
    expect(policy.roles.get('orders')?.audiences.get(OWN)?.ttlSeconds).toEqual({
      ...{ min: 5, default: 600, max: 3600 },
    })
    expect(warnings).toEqual([])
    expect(parsePolicy(json)).toEqual(policy)
  })

  test.each([
    ['ttlSeconds: { max: 900 }, ', { min: 5, default: 600, max: 900 }],
    ['ttlSeconds: { min: 60, default: 120 }, ', { min: 60, default: 120, max: 3600 }],
  ])('of X.509 with %s live within these bounds', (more, ttlSeconds) => {
    const { policy } = compile(withAudience(OWN, 'x509_svid', more))
    expect(policy.roles.get('orders')?.audiences.get(OWN)?.ttlSeconds).toEqual(ttlSeconds)
  })

  test('as JWTs stand under their audience, another SPIFFE ID too, and are bearer tokens', () => {
    const ledger = `${OWN}/role/ledger`
    const { policy, warnings } = compile(withAudience(ledger, 'jwt_svid'))
    expect(policy.profiles.get('svid')).toEqual({ type: 'jwt_svid', binding: 'none' })
    expect(policy.roles.get('orders')?.audiences.get(ledger)?.ttlSeconds.default).toBe(300)
    expect(warnings.map(({ message }) => message)).toEqual([
      expect.stringContaining('bearer tokens'),
    ])
  })

  test.each([
    ['X.509 under another audience', 'https://b.test', 'x509_svid'],
    ['X.509 under another trust domain', 'spiffe://other.test', 'x509_svid'],
    ['X.509 under a path of the trust domain', `${OWN}/role/orders`, 'x509_svid'],
    ['X.509 under the trust domain and a slash', `${OWN}/`, 'x509_svid'],
    ['JWTs under the trust domain', OWN, 'jwt_svid'],
    ['access tokens under the trust domain', OWN, 'access_token, binding: dpop'],
  ])('of %s are refused', (_, uri, type) => {
    const [problem] = problemsOf(withAudience(uri, type))
    expect(problem).toContain('expected X.509-SVIDs, and nothing else, under the trust domain')
    expect(problem).toContain('.profile: ')
  })

  test.each([
    ['x509_svid, binding: dpop', 'expected "certificate"'],
    ['x509_svid, binding: none', 'expected "certificate"'],
    ['jwt_svid, binding: dpop', 'expected "none"'],
    ['wit_svid', 'expected one of access_token, jwt_svid, x509_svid'],
  ])('of type %s are refused', (type, expected) => {
    expect(problemsOf(withAudience(OWN, type)).join('\n')).toContain(expected)
  })

  test('in a compiled policy say their binding and their lifetime', () => {
    const { json } = compile(withAudience(OWN, 'x509_svid'))
    for (const [from, to] of [
      ['"binding":"certificate",', ''],
      ['"default":600,', ''],
    ] as const) {
      expect(json).toContain(from)
      expect(() => parsePolicy(json.replace(from, to))).toThrow(PolicyError)
    }
  })
})

describe('a mistake is reported with its line, its place and what was expected', () => {
  test.each([
    ['version: 1', 'version: 0', 'version: expected a whole number from 1'],
    ['version: 1', 'version: "1"', 'version: expected a whole number from 1'],
    ['installation: demo', 'installation: a/b', 'installation: expected a name'],
    ['2026-12-24T00:00:00Z', '2026-12-24', 'expires: expected a time like'],
    ['2026-12-24T00:00:00Z', '2026-02-30T00:00:00Z', 'expires: expected a time like'],
    ['trustDomain: demo.bagcheck.test', 'trustDomain: Demo', 'trustDomain: expected a SPIFFE'],
    ['binding: dpop', 'binding: mtls', 'profiles.api.binding: expected "dpop" or "none"'],
    ['uid: 990', 'uid: -1', 'roles.orders.uid: expected a whole number'],
    ['launcher: bagcheck-exec', 'launcher: docker', 'roles.orders.unit.launcher: expected one of'],
    ['minTier: 0', 'minTier: 4', '.minTier: expected a whole number from 0 to 3'],
    ['minStrength: incremental', 'minStrength: good', '.minStrength: expected "path-claim" or'],
    ['min: 5,', 'min: 4,', '.ttlSeconds.min: expected a whole number from 5 to 3600'],
    ['max: 3600', 'max: 3601', '.ttlSeconds.max: expected a whole number from 5 to 3600'],
    ['default: 300', 'default: 3600, max: 60 } #', '.ttlSeconds: expected min ≤ default ≤ max'],
    ['profile: api', 'profile: apj', '.profile: expected one of the policy'],
    ['signers: [ci]', 'signers: [cj]', "roles.orders.signers[0]: expected one of the policy's"],
    ['signers: [ci]', 'signers: []', 'roles.orders.signers: expected a list of 1 to'],
    ['nodeClasses: [demo]', 'nodeClasses: demo', 'roles.orders.nodeClasses: expected a list'],
    ['impure: false', 'impure: maybe', 'roles.orders.build.impure: expected true or false'],
    ['state: active', 'state: retired', 'roles.orders.roots[0].state: expected "active" or'],
    [ORDERS.digest, 'abc', 'roles.orders.roots[0].closure: expected 64 lower-case hex'],
    [ORDERS.root, '/nix/store/x', 'roles.orders.roots[0].root: expected a store path'],
    ["'demo-node-*/bin/node'", "'/bin/node'", 'entry.executable: expected NAME/FILE'],
    ["'demo-node-*/bin/node'", "'demo-node-*/../x'", 'entry.executable: expected NAME/FILE'],
    ["'{script}'", "'x'", 'entry.arguments: expected "{script}" exactly once'],
    ["'--jitless'", "'--x={script}'", 'entry.arguments[0]: expected "{script}" as an argument'],
    ['https://api.demo.test:', 'api.demo.test:', 'expected an absolute URI'],
    ['https://api.demo.test:', '"https://*.test":', 'expected an absolute URI'],
  ])('%s → %s', (from, to, expected) => {
    const text = policySource([from, to])
    const [problem] = problemsOf(text)
    expect(problem).toContain(expected)
    // A place is where the value begins, which for a block is the line below its key.
    const below = to.endsWith(':') ? 1 : 0
    expect(Number(problem?.split(':')[0])).toBe(lineOf(text, to) + below)
  })

  test.each(['nodeClasses', 'unit', 'uid', 'entry', 'audiences', 'signers', 'build', 'roots'])(
    'a role without %s does not compile',
    (name) => {
      const pattern = new RegExp(`^    ${name}:.*\n(      .*\n)*`, 'm')
      const [problem] = problemsOf(policySource().replace(pattern, ''))
      expect(problem).toContain(`roles.orders.${name}: expected a value, saw nothing`)
    },
  )

  test('all mistakes of a file are reported, not only the first', () => {
    const text = policySource(['uid: 990', 'uid: x'], ['minTier: 0', 'minTier: x'])
    expect(problemsOf(text)).toHaveLength(2)
  })

  test('an unknown key is a mistake, so that a typo cannot take a demand away', () => {
    expect(problemsOf(policySource(['    uid: 990', '    uid: 990\n    user: x']))[0]).toContain(
      'roles.orders.user: expected one of',
    )
  })

  test('a native entry with the name of an interpreter', () => {
    for (const file of ['bin/node', 'bin/perl5.36', 'bin/.python3.11-wrapped', 'bin/bash']) {
      const text = policySource([
        `      kind: interpreter
      executable: 'demo-node-*/bin/node'
      script: 'orders-*/lib/service.mjs'
      arguments: ['--jitless', '{script}']`,
        `      kind: native\n      executable: 'x-*/${file}'`,
      ])
      expect(problemsOf(text)[0]).toContain('roles.orders.entry.kind: expected kind: interpreter')
    }
  })
})

describe('YAML that could mean two things is refused', () => {
  test.each([
    ['an anchor', policySource(['uid: 990', 'uid: &u 990']), 'expected no anchors'],
    ['a tag', policySource(['uid: 990', 'uid: !!str 990']), 'expected no tags'],
    ['a key twice', policySource(['uid: 990', 'uid: 990\n    uid: 0']), 'Map keys must be unique'],
    ['two documents', `${policySource()}---\n{}\n`, 'multiple documents'],
    ['a version of YAML', `%YAML 1.1\n---\n${policySource()}`, 'expected no %YAML directive'],
    ['a merge', policySource(['uid: 990', 'uid: 990\n    <<: { uid: 0 }']), 'expected one of'],
    ['no document', '', 'expected an object'],
    ['endless brackets', '['.repeat(20_000), ''],
  ])('%s', (_what, text, expected) => {
    expect(problemsOf(text).join('\n')).toContain(expected)
    expect(problemsOf(text)).not.toEqual([])
  })

  test('a text that is cut off at any line is refused', () => {
    const lines = policySource().trimEnd().split('\n')
    for (let count = 0; count < lines.length; count += 1)
      expect(problemsOf(lines.slice(0, count).join('\n'))).not.toEqual([])
  })
})

describe('successors', () => {
  const versions = ['1.1', '1.2', '1.3', '1.4', '1.5'].map((version) => orders(version))
  type Pair = readonly [from: { digest: string }, to: { digest: string }]
  const edges = (...pairs: readonly Pair[]) => [
    '    successors:',
    ...pairs.map(
      ([from, to]) =>
        `      - { from: ${from.digest}, to: ${to.digest}, expires: 2026-12-01T00:00:00Z }`,
    ),
    '',
  ]
  const all = [ORDERS, ...versions]
  const chain = (length: number) =>
    all.slice(0, length).flatMap((from, index) => {
      const to = all[index + 1]
      return to ? [[from, to] as const] : []
    })

  test('may form a chain of four, not of five', () => {
    expect(problemsOf(withRole(versions, ...edges(...chain(4))))).toEqual([])
    expect(problemsOf(withRole(versions, ...edges(...chain(5))))[0]).toContain(
      'roles.orders.successors[0]: expected a chain of at most 4 successors, saw 5',
    )
  })

  test('form no cycle, not even of one', () => {
    const cycles: readonly (readonly Pair[])[] = [
      [[ORDERS, ORDERS]],
      [
        [ORDERS, HOTFIX],
        [HOTFIX, ORDERS],
      ],
    ]
    for (const pairs of cycles)
      expect(problemsOf(withRole([HOTFIX], ...edges(...pairs)))[0]).toContain(
        'expected no cycle of successors',
      )
  })

  test('join approved closures only, at both ends', () => {
    const stranger = { digest: sha256Hex('stranger') }
    expect(problemsOf(withRole([], ...edges([ORDERS, stranger])))[0]).toContain('successors[0].to:')
    expect(problemsOf(withRole([], ...edges([stranger, ORDERS])))[0]).toContain(
      'successors[0].from:',
    )
  })

  test('are named once each', () => {
    expect(
      problemsOf(withRole([HOTFIX], ...edges([ORDERS, HOTFIX], [ORDERS, HOTFIX])))[0],
    ).toContain('successors[1]: expected each pair once')
  })

  test('in a lattice are checked in no time', () => {
    // Every path through 21 diamonds: two million, if they were walked one by one.
    const layers = Array.from({ length: 22 }, (_, layer) =>
      ['a', 'b'].map((side) => ({ digest: sha256Hex(`${layer}${side}`) })),
    )
    const pairs = layers.flatMap((layer, index) =>
      layer.flatMap((from) => (layers[index + 1] ?? []).map((to) => [from, to] as const)),
    )
    expect(problemsOf(withRole([], ...edges(...pairs.slice(0, 64))))).not.toEqual([])
  })
})
