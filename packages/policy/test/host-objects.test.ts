// Files that hosts inject. What a thief would try: the right bytes from elsewhere, the right file of a system
// that nobody approved, a system that was withdrawn, one attested by a stranger.
import { buildManifest, makeFileList, narHashFromDigest, sha256Hex } from '@bagcheck/nix'
import { attestClosure } from '@bagcheck/testkit'
import { describe, expect, test } from 'vitest'
import { closuresNeeded, evaluate, explainApproval, type Facts } from '../src/index.ts'
import {
  ORDERS,
  PURE,
  codesOf,
  compile,
  context,
  factsWith,
  inventPath,
  key,
  mapped,
  policySource,
  verified,
  type Edit,
} from './installation.ts'

const SYSTEM = inventPath('nixos-system-host-25.11')
const NSS = `${inventPath('nss-mdns-0.15')}/lib/libnss_mdns.so.2`
const ALLOCATOR = `${inventPath('mimalloc-2.1')}/lib/libmimalloc.so`

function system(signer = 'ci', content = 'nss') {
  const path = (file: string) => file.split('/').slice(0, 4).join('/') as typeof SYSTEM
  const narHash = narHashFromDigest(Buffer.from(sha256Hex(content), 'hex'))
  const paths = [SYSTEM, path(NSS), path(ALLOCATOR)]
  const references = [path(NSS), path(ALLOCATOR)]
  const manifest = buildManifest(
    SYSTEM,
    paths.map((one) => ({
      path: one,
      narHash,
      narSize: 400,
      references: one === SYSTEM ? references : [],
    })),
  )
  const files = makeFileList([
    { path: NSS, sha256: sha256Hex(content), size: 300, executable: false },
    { path: ALLOCATOR, sha256: sha256Hex('allocator'), size: 300, executable: false },
  ])
  return attestClosure({ manifest, files }, key(signer), PURE)
}

const HOST = system()
const DIGEST = HOST.manifest.digest
const allowed = `    allow: { hostObjects: [{ sha256: ${sha256Hex('nss')}, reason: mDNS names }] }\n`
const hosts = (more = '', nodeClass = 'demo', digest: string = DIGEST) =>
  `hosts:\n  ${nodeClass}:\n    signers: [ci]\n    systems:\n      - { root: ${SYSTEM}, closure: ${digest}${more} }\n`
const policyOf = (section: string, allow = allowed) =>
  verified(policySource(['roles:\n', `${section}roles:\n`]) + allow)

const using =
  (path = NSS, content = 'nss', wish = {}): Edit =>
  (facts) =>
    facts.processes[0]?.files.push(mapped(path, content, wish))
const judge = (facts: Facts, policy = policyOf(hosts()), closures = [ORDERS, HOST]) =>
  evaluate(policy, facts, {
    ...context(),
    closures: {
      get: (digest) =>
        closures.find(({ attestation }) => attestation.closureDigest === digest) as typeof ORDERS,
    },
  })

describe('a file that the host injects', () => {
  test('passes where the role names its bytes and an approved system holds that very file', () => {
    const decision = judge(factsWith(using()))
    if (!decision.allow) throw new TypeError(JSON.stringify(decision.reasons))
    const approval = decision.approval.use()
    expect(approval.hostObjects).toEqual([{ path: NSS, sha256: sha256Hex('nss'), system: DIGEST }])
    expect(approval.systems).toEqual([HOST.attestation])
    expect(explainApproval(approval, factsWith(using())).join('\n')).toContain(NSS)
  })

  test.each([
    [
      'the same bytes in a file of no system',
      using('/tmp/libnss_mdns.so.2', 'nss', { isStoreFile: false }),
    ],
    ['the same bytes elsewhere in the store', using(`${inventPath('mine')}/libnss_mdns.so.2`)],
    ['a file that only looks like the store’s', using(NSS, 'nss', { isStoreFile: false })],
    ['a file of the system that was deleted since', using(NSS, 'nss', { unlinked: true })],
  ])('%s does not pass', (_what, edit) => {
    expect(codesOf(judge(factsWith(edit)))).toEqual(['HOST_OBJECT_NOT_IN_SYSTEM'])
  })

  test.each([
    ['no system is approved', policyOf('')],
    ['the system is approved for another class', policyOf(hosts('', 'other'))],
    ['the system is revoked', policyOf(hosts(', state: revoked'))],
    ['the system was approved until now', policyOf(hosts(', notAfter: 2026-11-24T12:00:00Z'))],
    ['another content of that system is approved', policyOf(hosts('', 'demo', sha256Hex('other')))],
  ])('where %s it does not pass', (_what, policy) => {
    expect(codesOf(judge(factsWith(using()), policy))).toEqual(['HOST_OBJECT_NOT_IN_SYSTEM'])
  })

  test('of a system that a stranger attested does not pass', () => {
    const decision = judge(factsWith(using()), policyOf(hosts()), [
      ORDERS,
      system('other') as unknown as typeof ORDERS,
    ])
    expect(codesOf(decision)).toEqual(['HOST_OBJECT_NOT_IN_SYSTEM'])
  })

  test('with other bytes is no file of the system, whatever the role allows', () => {
    const both = `    allow: { hostObjects: [{ sha256: ${sha256Hex('evil')}, reason: x }] }\n`
    expect(codesOf(judge(factsWith(using(NSS, 'evil')), policyOf(hosts(), both)))).toEqual([
      'HOST_OBJECT_NOT_IN_SYSTEM',
    ])
  })

  test('that the role does not name is foreign, though the system holds it', () => {
    expect(codesOf(judge(factsWith(using(ALLOCATOR, 'allocator'))))).toEqual([
      'FILE_NOT_IN_CLOSURE',
    ])
  })

  test('is never the program', () => {
    const executing = factsWith((facts) => {
      const [first] = facts.processes
      if (first) facts.processes.push({ ...first, pid: 101, executable: mapped(NSS, 'nss') })
    })
    expect(codesOf(judge(executing))).toContain('FILE_NOT_IN_CLOSURE')
  })

  test('asks for the systems of the node’s class, and only where the role allows any', () => {
    const facts = factsWith(() => undefined)
    expect(closuresNeeded(policyOf(hosts()), facts, 'demo')).toEqual([ORDERS.digest, DIGEST])
    expect(closuresNeeded(policyOf(hosts()), facts, 'other')).toEqual([ORDERS.digest])
    expect(closuresNeeded(policyOf(hosts(), ''), facts, 'demo')).toEqual([ORDERS.digest])
  })
})

test.each([
  ['signers: [ci]', 'signers: [cj]', "hosts.demo.signers[0]: expected one of the policy's signers"],
  ['signers: [ci]', 'signers: []', 'hosts.demo.signers: expected who may attest the systems'],
  [
    `closure: ${DIGEST} }`,
    `closure: ${DIGEST} }\n      - { root: ${SYSTEM}, closure: ${DIGEST} }`,
    'hosts.demo.systems[1].closure: expected each closure once',
  ],
])('systems with %s as %s are a mistake', (from, to, expected) => {
  const text = policySource(['roles:\n', `${hosts().replace(from, to)}roles:\n`])
  expect(() => compile(text)).toThrow(expected)
})

describe('a host that must run an approved system', () => {
  const demanding = (systems = hosts()) =>
    policyOf(systems.replace('signers:', 'require: { approvedSystem: true }\n    signers:'))
  const on = (currentSystem: string | null, bootedSystem: string | null, policy = demanding()) =>
    codesOf(
      evaluate(
        policy,
        factsWith(() => undefined),
        {
          ...context(),
          host: { ...context().host, currentSystem, bootedSystem },
          closures: {
            get: (digest) =>
              [ORDERS, HOST].find(
                ({ attestation }) => attestation.closureDigest === digest,
              ) as typeof ORDERS,
          },
        },
      ),
    )
  const OTHER = inventPath('nixos-system-other')

  test('passes with one that is approved and attested, booted and current', () => {
    expect(on(SYSTEM, SYSTEM)).toEqual([])
  })

  test.each([
    ['another was booted', SYSTEM, OTHER],
    ['another is current', OTHER, SYSTEM],
    ['it cannot name one', null, SYSTEM],
    ['it is no NixOS', null, null],
  ])('is denied where %s', (_what, current, booted) => {
    expect(on(current, booted)).toEqual(['HOST_SYSTEM_NOT_APPROVED'])
  })

  test('is denied where the system is revoked', () => {
    expect(on(SYSTEM, SYSTEM, demanding(hosts(', state: revoked')))).toEqual([
      'HOST_SYSTEM_NOT_APPROVED',
    ])
  })
})
