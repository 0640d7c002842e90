import fc from 'fast-check'
import { UNKNOWN_FACTS } from '@bagcheck/attest'
import { sha256Hex } from '@bagcheck/nix'
import { describe, expect, test } from 'vitest'
import {
  DENIAL_CODES,
  evaluate,
  type Approval,
  type ClosureIndex,
  type ExecutableMemory,
  type Facts,
} from '../src/index.ts'
import * as publicApi from '../src/index.ts'
import {
  AUDIENCE,
  HOTFIX,
  LIBC,
  NODE,
  NOW,
  ORDERS,
  POLICY,
  PURE,
  ROOT,
  codesOf,
  context,
  factsWith,
  inventPath,
  judge,
  mapped,
  nodeProcess,
  orders,
  passing,
  policySource,
  verified,
  withRole,
  type Edit,
} from './installation.ts'

const first = <T>(list: readonly T[]): T => {
  const [found] = list
  if (found === undefined) throw new TypeError('expected an entry')
  return found
}
const process0 = (facts: Parameters<Edit>[0]) => first(facts.processes)
const root0 = (facts: Parameters<Edit>[0]) => first(facts.roots)
const contract0 = (facts: Parameters<Edit>[0]) => {
  if (!facts.unit.contract) throw new TypeError('expected a contract')
  return facts.unit.contract
}
const approvalOf = (facts: Facts, policy = POLICY, with_ = context()): Approval => {
  const decision = evaluate(policy, facts, with_)
  if (!decision.allow) throw new TypeError(JSON.stringify(decision.reasons))
  return decision.approval
}

describe('an approval', () => {
  test('says who gets what for which closure under which policy', () => {
    expect(approvalOf(passing()).use()).toEqual({
      role: 'orders',
      sub: 'spiffe://demo.bagcheck.test/role/orders',
      audience: AUDIENCE,
      profile: { name: 'api', type: 'access_token', binding: 'dpop' },
      root: ORDERS.root,
      closureDigest: ORDERS.digest,
      successorOf: null,
      tier: 0,
      strength: 'incremental',
      ttlSeconds: 300,
      policyVersion: 1,
      policySha256: POLICY.sha256,
      attested: ORDERS.attestation,
      hostObjects: [],
      systems: [],
      jit: false,
    })
  })

  test('can be used once', () => {
    const approval = approvalOf(passing())
    approval.use()
    expect(() => approval.use()).toThrow(TypeError)
  })

  test('cannot be constructed by those who import the package', () => {
    expect(Object.keys(publicApi)).not.toContain('Approval')
    expect(Object.keys(publicApi)).not.toContain('approve')
  })

  test.each([
    [null, 300],
    [1, 5],
    [5, 5],
    [77, 77],
    [86_400, 3600],
  ])('for %s seconds lasts %s', (wanted, granted) => {
    expect(approvalOf(factsWith((facts) => (facts.ttlSeconds = wanted))).use().ttlSeconds).toBe(
      granted,
    )
  })
})

const memory = (wish: Partial<ExecutableMemory> = {}): ExecutableMemory => ({
  ...{ kind: 'anonymous', name: '', regions: 1, bytes: 4096 },
  ...wish,
})

const at = (seconds: number): Date => new Date(NOW.getTime() + seconds * 1000)

describe('one thing wrong in the facts is denied with its own code', () => {
  const table: readonly (readonly [code: string, what: string, edit: Edit])[] = [
    ['UNIT_NONE', 'no unit', (f) => (f.unit.launcher = 'none')],
    ['ROLE_UNKNOWN', 'another unit', (f) => (f.unit.name = 'order')],
    ['ROLE_UNKNOWN', 'the same name under another launcher', (f) => (f.unit.launcher = 'systemd')],
    ['AUDIENCE_NOT_ALLOWED', 'another audience', (f) => (f.audience = `${AUDIENCE}/`)],
    ['CLOSURE_NOT_APPROVED', 'no root fits', (f) => (f.roots = [])],
    [
      'CLOSURE_NOT_APPROVED',
      'the approved root path with other content',
      (f) => (root0(f).closureDigest = sha256Hex('other')),
    ],
    ['ROOT_MISMATCH', 'the content at another path', (f) => (root0(f).root = HOTFIX.root)],
    [
      'CONTENT_MISMATCH',
      'a store file that differs',
      (f) =>
        (root0(f).mismatch = {
          path: ORDERS.root,
          file: `${ORDERS.root}/lib/other.mjs`,
          kind: 'content',
          expected: 'a',
          seen: 'b',
        }),
    ],
    ['STRENGTH_TOO_LOW', 'a check by metadata', (f) => (root0(f).strength = 'metadata')],
    ['FULL_CHECK_TOO_OLD', 'no full check for a day', (f) => (root0(f).lastFullAt -= 86_400)],
    ['FULL_CHECK_TOO_OLD', 'a full check in the future', (f) => (root0(f).lastFullAt += 66)],
    ['FULL_CHECK_TOO_OLD', 'a check in the future', (f) => (root0(f).checkedAt += 10)],
    ['CALLER_NOT_IN_UNIT', 'a caller from elsewhere', (f) => (f.callerPid = 7)],
    ['CALLER_NOT_IN_UNIT', 'no processes', (f) => (f.processes = [])],
    ['UID_NOT_ALLOWED', 'another effective uid', (f) => (process0(f).uids[1] = 0)],
    ['UID_NOT_ALLOWED', 'another saved uid', (f) => (process0(f).uids[2] = 0)],
    ['UID_NOT_ALLOWED', 'started for another uid', (f) => (contract0(f).uid = 0)],
    ['NEW_PRIVILEGES_POSSIBLE', 'no no-new-privs', (f) => (process0(f).noNewPrivs = false)],
    ...(['inheritable', 'permitted', 'effective', 'ambient'] as const).map(
      (set) =>
        [
          'CAPABILITY_NOT_ALLOWED',
          `a capability in ${set}`,
          (f: Parameters<Edit>[0]) => (process0(f).capabilities[set] = '0000000000000400'),
        ] as const,
    ),
    ['TRACED', 'a tracer', (f) => (process0(f).tracerPid = 9)],
    ['USER_NAMESPACE', 'a user namespace', (f) => (process0(f).hostUserNamespace = false)],
    ['ROOT_DIRECTORY', 'a chroot', (f) => (process0(f).hostRoot = false)],
    ['STORE_MOUNT', 'another store', (f) => (process0(f).verifiedStoreMount = false)],
    ['MOUNT_BELOW_STORE', 'a bind mount', (f) => (process0(f).mountsBelowStore = [NODE])],
    [
      'FILE_NOT_IN_CLOSURE',
      'a preloaded library',
      (f) => process0(f).files.push(mapped('/tmp/evil.so', 'evil', { isStoreFile: false })),
    ],
    [
      'FILE_NOT_IN_CLOSURE',
      'a store file of another closure',
      (f) => process0(f).files.push(mapped(`${inventPath('other')}/lib/x.so`, 'x')),
    ],
    [
      'FILE_NOT_STORE_FILE',
      'a copy of the interpreter',
      (f) => (process0(f).executable = mapped('/tmp/node', 'node', { isStoreFile: false })),
    ],
    [
      'FILE_NOT_STORE_FILE',
      'the right name and bytes in another object',
      (f) => (first(process0(f).files).isStoreFile = false),
    ],
    [
      'FILE_NOT_STORE_FILE',
      'the bytes of another file of the closure under its name',
      (f) => process0(f).files.push(mapped(`${NODE}2`, 'libc')),
    ],
    ['FILE_UNLINKED', 'a deleted library', (f) => (first(process0(f).files).unlinked = true)],
    [
      'CONTENT_MISMATCH',
      'a mapped store file with other bytes',
      (f) => (first(process0(f).files).sha256 = sha256Hex('evil')),
    ],
    ['TEXT_MODIFIED', 'patched code', (f) => (process0(f).modifiedTextBytes = 4096)],
    ['JIT_NOT_ALLOWED', 'anonymous code', (f) => process0(f).executableMemory.push(memory())],
    ['INTERPRETER_WITHOUT_CONTRACT', 'no contract', (f) => (f.unit.contract = null)],
    ['CONTRACT_BROKEN', 'exec after the launch', (f) => (contract0(f).intact = false)],
    ['CONTRACT_BROKEN', 'a reused pid', (f) => (contract0(f).startTicks += 1)],
    ['CONTRACT_BROKEN', 'another main process', (f) => (contract0(f).pid = 101)],
    ['ENTRY_MISMATCH', 'another executable on record', (f) => (contract0(f).executable = LIBC)],
    [
      'SCRIPT_NOT_IN_CLOSURE',
      'a foreign script',
      (f) => {
        contract0(f).arguments[1] = '/tmp/service.mjs'
        process0(f).argv[2] = '/tmp/service.mjs'
      },
    ],
    [
      'SCRIPT_NOT_IN_CLOSURE',
      'a way out of the store path',
      (f) => {
        contract0(f).arguments[1] = `${ORDERS.root}/lib/../../x/service.mjs`
        process0(f).argv[2] = `${ORDERS.root}/lib/../../x/service.mjs`
      },
    ],
    [
      'ARGUMENTS_MISMATCH',
      'another script of the closure',
      (f) => {
        contract0(f).arguments[1] = `${ORDERS.root}/lib/other.mjs`
        process0(f).argv[2] = `${ORDERS.root}/lib/other.mjs`
      },
    ],
    [
      'ARGUMENTS_MISMATCH',
      'one argument more',
      (f) => {
        contract0(f).arguments.push('--import=/tmp/x')
        process0(f).argv.push('--import=/tmp/x')
      },
    ],
    ['ARGUMENTS_MISMATCH', 'argv that contradicts', (f) => process0(f).argv.push('-e')],
    [
      'ARGUMENTS_MISMATCH',
      'arguments through the environment',
      (f) => process0(f).environmentHints.push('NODE_OPTIONS'),
    ],
    [
      'ARGUMENTS_MISMATCH',
      'a start-up file through the environment',
      (f) => process0(f).environmentHints.push('PHPRC'),
    ],
    [
      'INTERPRETER_WITHOUT_CONTRACT',
      'a second process of the interpreter',
      (f) => f.processes.push({ ...process0(f), pid: 101, isMainImage: false }),
    ],
    [
      'ARGUMENTS_MISMATCH',
      'a fork of the interpreter that shows other arguments',
      (f) => f.processes.push({ ...process0(f), pid: 101, argv: ['node', 'other.mjs'] }),
    ],
    [
      'ARGUMENTS_MISMATCH',
      'a fork of the interpreter with further arguments through the environment',
      (f) => f.processes.push({ ...process0(f), pid: 101, environmentHints: ['NODE_OPTIONS'] }),
    ],
    ['EVALUATION_FAILED', 'a lifetime that is none', (f) => (f.ttlSeconds = Number.NaN)],
  ]

  test.each(table)('%s: %s', (code, _what, edit) => {
    expect(codesOf(judge(factsWith(edit)))).toContain(code)
  })

  test('and the unchanged facts pass', () => {
    expect(codesOf(judge(passing()))).toEqual([])
  })

  test('each reason is one sentence that names what it is about', () => {
    for (const [, , edit] of table) {
      const decision = judge(factsWith(edit))
      if (decision.allow) throw new TypeError('expected a denial')
      for (const { code, message } of decision.reasons) {
        expect(DENIAL_CODES).toContain(code)
        expect(message).toMatch(/^[\x20-\x7e]{10,}$/)
      }
    }
  })
})

describe('one thing wrong in what the broker knows is denied', () => {
  test.each([
    ['NODE_CLASS_NOT_ALLOWED', { nodeClass: 'other' }],
    ['KEY_REQUIRED', { workloadKey: null }],
    ['KEY_REQUIRED', { workloadKey: '' }],
    ['PROFILE_MISMATCH', { profile: 'plain' }],
    ['TOKEN_TYPE_MISMATCH', { type: 'x509_svid' as const }],
    ['TOKEN_TYPE_MISMATCH', { type: 'jwt_svid' as const }],
    ['TIER_TOO_LOW', { tier: Number.NaN }],
    ['POLICY_NOT_IN_FORCE', { now: at(30 * 86_400) }],
    ['EVALUATION_FAILED', { now: new Date(Number.NaN) }],
    ['ATTESTATION_MISSING', { closures: { get: () => undefined } }],
    ['ATTESTATION_MISSING', { closures: { get: () => HOTFIX } }],
    ['ATTESTATION_MISSING', { closures: { get: () => ({ ...ORDERS, files: HOTFIX.files }) } }],
    [
      'EVALUATION_FAILED',
      {
        closures: {
          get: () => {
            throw new Error('the store is gone')
          },
        },
      },
    ],
  ])('%s', (code, wish) => {
    expect(codesOf(evaluate(POLICY, passing(), context(wish)))).toContain(code)
  })

  test('nothing, where a signer of no concern to the role attested the closure last', () => {
    const other = orders('1.0', { signer: 'other' })
    const newestFirst = [other, ORDERS]
    const closures: ClosureIndex = {
      get: (_digest, accepts = () => true) =>
        newestFirst.find(({ attestation }) => accepts(attestation.signer.keyId)),
    }
    expect(evaluate(POLICY, passing(), context({ closures })).allow).toBe(true)
  })

  test('an attestation by a signer of no concern to the role', () => {
    const other = orders('1.0', { signer: 'other' })
    expect(codesOf(evaluate(POLICY, passing(), context({}, [other])))).toEqual([
      'SIGNER_NOT_ALLOWED',
    ])
  })

  test('a trust root that has expired while the broker ran', () => {
    const policy = verified(policySource(), { ...ROOT, expires: '2026-11-24T12:00:00Z' })
    expect(codesOf(judge(passing(), policy))).toEqual(['POLICY_NOT_IN_FORCE'])
  })

  test('a policy before its time', () => {
    const policy = verified(
      policySource(['version: 1\n', 'version: 1\nnotBefore: 2026-11-24T12:00:01Z\n']),
    )
    expect(codesOf(judge(passing(), policy))).toEqual(['POLICY_NOT_IN_FORCE'])
  })

  test.each([
    ['BUILD_FACT_UNKNOWN', UNKNOWN_FACTS.build.sandbox],
    ['BUILD_FACT', { value: false, source: 'nix show-config' }],
  ])('%s', (code, sandbox) => {
    const closure = orders('1.0', { facts: { ...PURE, build: { ...PURE.build, sandbox } } })
    expect(codesOf(evaluate(POLICY, passing(), context({}, [closure])))).toEqual([code])
  })
})

test('a build fact that denies is told with its source, so that it can be mended there', () => {
  const sandbox = { value: false, source: 'nix show-config, client of a daemon' }
  const closure = orders('1.0', { facts: { ...PURE, build: { ...PURE.build, sandbox } } })
  const decision = evaluate(POLICY, passing(), context({}, [closure]))
  expect(decision).toMatchObject({
    reasons: [{ message: expect.stringContaining('by "nix show-config, client of a daemon"') }],
  })
})

describe('policy that differs', () => {
  const role = (text: string): Facts => ({ ...passing(), audience: text })

  test('two roles for one unit and audience are ambiguous', () => {
    const text = policySource()
    const twin = text.slice(text.indexOf('  orders:')).replace('  orders:', '  twin:')
    expect(codesOf(judge(passing(), verified(text + twin)))).toEqual(['ROLE_AMBIGUOUS'])
  })

  test('a tier that nobody reaches', () => {
    const policy = verified(policySource(['minTier: 0', 'minTier: 1']))
    expect(codesOf(judge(passing(), policy))).toEqual(['TIER_TOO_LOW'])
  })

  test('a bearer profile needs no key', () => {
    const policy = verified(policySource(['profile: api', 'profile: plain']))
    const decision = evaluate(policy, passing(), context({ workloadKey: null }))
    expect(codesOf(decision)).toEqual([])
  })

  test('a systemd unit is meant with its whole cgroup', () => {
    const policy = verified(
      policySource([
        '{ launcher: bagcheck-exec, name: orders }',
        '{ launcher: systemd, name: orders.service, cgroup: /system.slice/orders.service }',
      ]),
    )
    const of = (cgroup: string): Facts =>
      factsWith((facts) => {
        facts.unit = { ...facts.unit, launcher: 'systemd', name: 'orders.service', cgroup }
      })
    expect(codesOf(judge(of('/system.slice/orders.service'), policy))).toEqual([])
    expect(codesOf(judge(of('/user.slice/u.scope/orders.service'), policy))).toEqual([
      'ROLE_UNKNOWN',
    ])
  })

  test('a revoked closure is denied', () => {
    const policy = verified(policySource(['state: active', 'state: revoked']))
    expect(codesOf(judge(passing(), policy))).toEqual(['CLOSURE_REVOKED'])
  })

  test('a closure is denied from the second of its notAfter on', () => {
    const until = (time: string) =>
      verified(policySource(['state: active', `state: active, notAfter: ${time}`]))
    expect(codesOf(judge(passing(), until('2026-11-24T12:00:00Z')))).toEqual(['CLOSURE_EXPIRED'])
    expect(codesOf(judge(passing(), until('2026-11-24T12:00:01Z')))).toEqual([])
  })

  test('a closure that is approved for some audiences gets no others', () => {
    const text = policySource(
      ['state: active', `state: active, audiences: ['https://b.test']`],
      [
        '    signers: [ci]',
        '      https://b.test: { profile: api, minTier: 0, minStrength: full, maxAgeFullSeconds: 60 }\n    signers: [ci]',
      ],
    )
    expect(codesOf(judge(passing(), verified(text)))).toEqual(['AUDIENCE_NOT_ALLOWED'])
    const strong = factsWith((facts) => {
      facts.audience = 'https://b.test'
      root0(facts).strength = 'full'
    })
    expect(codesOf(judge(strong, verified(text)))).toEqual([])
    expect(codesOf(judge(role('https://b.test'), verified(text)))).toEqual(['STRENGTH_TOO_LOW'])
  })

  test('capabilities that the role names are allowed, others are not', () => {
    const policy = verified(
      policySource([
        '    signers: [ci]',
        '    capabilities: [CAP_NET_BIND_SERVICE]\n    signers: [ci]',
      ]),
    )
    const holding = (set: string): Facts =>
      factsWith((facts) => (process0(facts).capabilities.effective = set))
    expect(codesOf(judge(holding('0000000000000400'), policy))).toEqual([])
    expect(codesOf(judge(holding('0000000000000401'), policy))).toEqual(['CAPABILITY_NOT_ALLOWED'])
    expect(codesOf(judge(holding('8000000000000400'), policy))).toEqual(['CAPABILITY_NOT_ALLOWED'])
  })

  const allow = (text: string) => verified(`${policySource()}    allow:\n${text}\n`)

  test('executable memory is allowed for a runtime by digest, within bounds', () => {
    const jit = (runtime: string) =>
      allow(`      jit: [{ runtime: ${runtime}, maxRegions: 2, maxBytes: 8192 }]`)
    const using = (regions: number, bytes: number): Facts =>
      factsWith((facts) => process0(facts).executableMemory.push(memory({ regions, bytes })))
    const ours = jit(sha256Hex('node'))
    expect(approvalOf(using(2, 8192), ours).use().jit).toBe(true)
    expect(codesOf(judge(using(3, 8192), ours))).toEqual(['JIT_REGIONS'])
    expect(codesOf(judge(using(2, 8193), ours))).toEqual(['JIT_BYTES'])
    expect(codesOf(judge(using(Number.NaN, 1), ours))).toEqual(['JIT_REGIONS'])
    expect(codesOf(judge(using(1, 1), jit(sha256Hex('other'))))).toEqual(['JIT_NOT_ALLOWED'])
  })

  const native = (more = '') =>
    verified(
      policySource([
        `      kind: interpreter
      executable: 'demo-node-*/bin/node'
      script: 'orders-*/lib/service.mjs'
      arguments: ['--jitless', '{script}']`,
        `      kind: native\n      executable: 'demo-node-*/lib/libc.so.6'${more}`,
      ]),
    )
  const nativeFacts = (edit: Edit = () => undefined): Facts =>
    factsWith((facts) => {
      Object.assign(contract0(facts), { executable: LIBC, arguments: ['serve'] })
      Object.assign(process0(facts), { executable: mapped(LIBC, 'libc'), argv: ['x', 'serve'] })
      edit(facts)
    })

  test('a native role takes any arguments, or those that it names', () => {
    expect(codesOf(judge(nativeFacts(), native()))).toEqual([])
    const named = native(`\n      arguments: ['serve']`)
    expect(codesOf(judge(nativeFacts(), named))).toEqual([])
    const other = nativeFacts((facts) => {
      contract0(facts).arguments = ['debug']
      process0(facts).argv = ['x', 'debug']
    })
    expect(codesOf(judge(other, named))).toEqual(['ARGUMENTS_MISMATCH'])
  })

  test.each([
    ['another', ['--password=hunter2', ORDERS.script], 'argument 1 is another'],
    ['one more', ['--jitless', ORDERS.script, 'hunter2'], 'saw 1 more'],
    ['fewer', ['--jitless'], 'saw 1 of them'],
  ])(
    'arguments that differ by %s are told without what was seen, because they may be secrets',
    (_how, args, said) => {
      const facts = factsWith((edited) => {
        edited.unit.contract!.arguments = args
        process0(edited).argv = ['node', ...args]
      })
      const decision = judge(facts)
      const text = JSON.stringify(decision)
      expect(codesOf(decision)).toContain('ARGUMENTS_MISMATCH')
      expect(text).toContain(said)
      expect(text).not.toContain('hunter2')
    },
  )

  test('an interpreter may fork: what it was told to run, its forks run too', () => {
    const forked = factsWith((facts) => facts.processes.push({ ...process0(facts), pid: 101 }))
    expect(codesOf(judge(forked))).toEqual([])
  })

  test('a native role may have several processes, but no interpreter among them', () => {
    const worker = nativeFacts((facts) => facts.processes.push({ ...process0(facts), pid: 101 }))
    expect(codesOf(judge(worker, native()))).toEqual([])
    const child = nativeFacts((facts) =>
      facts.processes.push({
        ...process0(facts),
        ...{ pid: 101, isMainImage: false, executable: mapped(NODE, 'node') },
      }),
    )
    expect(codesOf(judge(child, native()))).toEqual(['INTERPRETER_WITHOUT_CONTRACT'])
  })

  test('a native role without contract is denied', () => {
    const without = nativeFacts((facts) => (facts.unit.contract = null))
    expect(codesOf(judge(without, native()))).toEqual(['CONTRACT_MISSING'])
  })
})

describe('several closures that fit', () => {
  const both = factsWith((facts) =>
    facts.roots.push({ ...root0(facts), root: HOTFIX.root, closureDigest: HOTFIX.digest }),
  )

  test('an unapproved one beside an approved one changes nothing', () => {
    expect(codesOf(judge(both))).toEqual([])
  })

  test('two approved ones with different verdicts are ambiguous', () => {
    // The script of 1.0 is not in the closure of the hotfix.
    expect(codesOf(judge(both, verified(withRole([HOTFIX]))))).toEqual([
      'CLOSURE_AMBIGUOUS',
      'SCRIPT_NOT_IN_CLOSURE',
    ])
  })

  test('the same one twice, once with a mismatch, is ambiguous', () => {
    const twice = factsWith((facts) => {
      const mismatch = { path: NODE, file: null, kind: 'nar', expected: 'a', seen: 'b' }
      facts.roots.push({ ...root0(facts), mismatch })
    })
    expect(codesOf(judge(twice))[0]).toBe('CLOSURE_AMBIGUOUS')
  })

  test('of two that pass, the first by digest is named, in whatever order they come', () => {
    const native = policySource([
      `      kind: interpreter
      executable: 'demo-node-*/bin/node'
      script: 'orders-*/lib/service.mjs'
      arguments: ['--jitless', '{script}']`,
      `      kind: native\n      executable: 'demo-node-*/lib/libc.so.6'`,
    ])
    const root = `      - { root: ${HOTFIX.root}, closure: ${HOTFIX.digest}, state: active }\n`
    const policy = verified(native + root)
    const facts = (reverse: boolean): Facts => ({
      ...factsWith((edited) => {
        Object.assign(contract0(edited), { executable: LIBC, arguments: [] })
        Object.assign(process0(edited), { executable: mapped(LIBC, 'libc'), argv: ['x'] })
      }),
      roots: reverse ? both.roots.toReversed() : both.roots,
    })
    const lowest = [ORDERS.digest, HOTFIX.digest].toSorted()[0]
    expect(approvalOf(facts(false), policy).use().closureDigest).toBe(lowest)
    expect(approvalOf(facts(true), policy).use().closureDigest).toBe(lowest)
  })
})

describe('successors', () => {
  const edge = (expires: string, from = ORDERS, to = HOTFIX): string =>
    `      - { from: ${from.digest}, to: ${to.digest}, expires: ${expires} }`
  const NEXT_WEEK = '2026-12-01T00:00:00Z'
  const succeeding = (...edits: readonly (readonly [string, string])[]) => {
    let text = withRole([HOTFIX], '    successors:', edge(NEXT_WEEK), '')
    for (const [from, to] of edits) text = text.replace(from, to)
    return verified(text)
  }

  test('both ends get tokens while the edge lasts, and the new one names the old', () => {
    expect(approvalOf(passing(), succeeding()).use().successorOf).toBeNull()
    expect(approvalOf(passing(HOTFIX), succeeding()).use().successorOf).toBe(ORDERS.digest)
  })

  test('after the edge expired the old one is denied and the new one is not', () => {
    const policy = succeeding([NEXT_WEEK, '2026-11-24T12:00:00Z'])
    expect(codesOf(judge(passing(), policy))).toEqual(['SUCCESSOR_EXPIRED'])
    expect(codesOf(judge(passing(HOTFIX), policy))).toEqual([])
  })

  test('the new one is bound by the notAfter of the old', () => {
    const policy = succeeding(['state: active', 'state: active, notAfter: 2026-11-24T00:00:00Z'])
    const decision = judge(passing(HOTFIX), policy)
    expect(codesOf(decision)).toEqual(['CLOSURE_EXPIRED'])
    const named = `succeeds ${ORDERS.root} (closure ${ORDERS.digest}), which was approved until`
    expect(!decision.allow && first(decision.reasons).message).toContain(named)
  })

  test('the new one gets no audience that the old one did not have', () => {
    const policy = succeeding(
      ['state: active', `state: active, audiences: ['https://b.test']`],
      [
        '    signers: [ci]',
        '      https://b.test: { profile: api, minTier: 0, minStrength: full, maxAgeFullSeconds: 60 }\n    signers: [ci]',
      ],
    )
    expect(codesOf(judge(passing(HOTFIX), policy))).toEqual(['AUDIENCE_NOT_ALLOWED'])
  })

  test('revoking the old one leaves the one that repairs it', () => {
    const policy = succeeding(['state: active', 'state: revoked'])
    expect(codesOf(judge(passing(), policy))).toEqual(['CLOSURE_REVOKED'])
    expect(codesOf(judge(passing(HOTFIX), policy))).toEqual([])
  })
})

describe('a denial of an unapproved closure', () => {
  const next = orders('1.1')
  const reason = (known: boolean) => {
    const closures = known ? [ORDERS, next] : [ORDERS]
    const decision = evaluate(POLICY, passing(next), context({}, closures))
    if (decision.allow) throw new TypeError('expected a denial')
    expect(decision.role).toBe('orders')
    return first(decision.reasons)
  }

  test('names the nearest approved one and the first file that differs', () => {
    expect(reason(true)).toMatchObject({
      code: 'CLOSURE_NOT_APPROVED',
      nearest: {
        root: ORDERS.root,
        closureDigest: ORDERS.digest,
        firstDifference: `${next.script} differs from ${ORDERS.script}`,
      },
    })
  })

  test('names what is known where the closure was never attested', () => {
    expect(reason(false).nearest?.firstDifference).toBe(`${next.script} is not in it`)
  })

  test('says so where an approved interpreter was copied', () => {
    const facts = factsWith((edited) => {
      edited.roots = []
      process0(edited).executable = mapped('/tmp/node', 'node', { isStoreFile: false })
    })
    expect(codesOf(judge(facts))).toEqual(['CLOSURE_NOT_APPROVED', 'FILE_NOT_STORE_FILE'])
  })
})

describe('what a node sends to make trouble', () => {
  const foreign = (count: number): Facts =>
    factsWith((facts) => {
      for (let i = 0; i < count; i += 1)
        process0(facts).files.push(mapped(`/tmp/${i}`, `${i}`, { isStoreFile: false }))
    })

  test('thousands of foreign files are spelled out a few times and counted', () => {
    const decision = judge(foreign(4000))
    if (decision.allow) throw new TypeError('expected a denial')
    expect(decision.reasons).toHaveLength(8)
    expect(decision.reasons.at(-1)?.message).toMatch(/\(and 3992 more like this\)$/)
  })

  test('control characters in a path do not reach a terminal', () => {
    const facts = factsWith((edited) =>
      process0(edited).files.push(
        mapped('/tmp/\u001b[2Jx\u009b\u202e', 'x', { isStoreFile: false }),
      ),
    )
    const decision = judge(facts)
    if (decision.allow) throw new TypeError('expected a denial')
    expect(first(decision.reasons).message).toContain(String.raw`/tmp/\u001b[2Jx\u009b\u202e`)
  })

  test('a foreign file more never allows', () => {
    const file = fc.record({
      path: fc.oneof(fc.constantFrom(NODE, LIBC, ORDERS.script, '/tmp/x'), fc.string()),
      sha256: fc.constantFrom(...['node', 'libc', 'evil'].map((text) => sha256Hex(text))),
      isStoreFile: fc.boolean(),
      unlinked: fc.boolean(),
    })
    fc.assert(
      fc.property(fc.array(file, { minLength: 1, maxLength: 5 }), (files) => {
        const facts = factsWith((edited) => {
          for (const { path, ...wish } of files)
            process0(edited).files.push(mapped(path, 'any', wish))
        })
        const inClosure = ({ path, sha256, isStoreFile, unlinked }: (typeof files)[number]) =>
          ORDERS.files.byPath.get(path)?.sha256 === sha256 && isStoreFile && !unlinked
        expect(judge(facts).allow).toBe(files.every(inClosure))
      }),
    )
  })

  test('a fact that is missing never allows, unless nothing is decided by it', () => {
    const NOT_DECIDED_BY = new Set([
      'purpose',
      'unit.cgroup',
      'unit.contract.gid',
      'unit.contract.noNewPrivs',
      // Of units that this one is none of.
      'unit.container',
      'unit.service',
      'processes.0.inContainer',
      'processes.0.gids',
      // The main process is what the contract names, and intact or not.
      'processes.0.isMainImage',
      'processes.0.seccomp',
      'processes.0.executable.device',
      'processes.0.executable.inode',
      'processes.0.files.0.device',
      'processes.0.files.0.inode',
      // An empty list is what a list without its only entry is.
      'processes.0.files.0',
      'processes.0.descriptors.0',
      // The role here does not say what its interpreter may read.
      'processes.0.dataFiles',
      'processes.0.dataFiles.count',
      'processes.0.dataFiles.files',
      'processes.0.descriptors.0.name',
      'processes.0.descriptors.0.count',
    ])
    const allowed = pathsOf(passing()).filter((path) => judge(without(path)).allow)
    const undecided = (path: string): boolean =>
      NOT_DECIDED_BY.has(path) || path.startsWith('processes.0.gids.')
    expect(allowed.filter((path) => !undecided(path))).toEqual([])
  })
})

/** Every place in a value, as a dotted path. */
function pathsOf(value: unknown, path = ''): string[] {
  if (typeof value !== 'object' || value === null) return path === '' ? [] : [path]
  const below = Object.entries(value).flatMap(([name, entry]) =>
    pathsOf(entry, path === '' ? name : `${path}.${name}`),
  )
  return path === '' ? below : [path, ...below]
}

function without(path: string): Facts {
  const facts = structuredClone(passing())
  const names = path.split('.')
  const last = names.pop() ?? ''
  let at: unknown = facts
  for (const name of names) at = (at as Record<string, unknown>)[name]
  if (Array.isArray(at)) at.splice(Number(last), 1)
  else delete (at as Record<string, unknown>)[last]
  return facts
}

test('a process is judged like the first, whichever it is', () => {
  const other = nodeProcess({ pid: 101, uids: [0, 0, 0, 0] })
  const facts = factsWith((edited) => edited.processes.push(structuredClone(other) as never))
  expect(codesOf(judge(facts))).toContain('UID_NOT_ALLOWED')
})
