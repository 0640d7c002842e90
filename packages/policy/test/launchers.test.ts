// Units of systemd and of container runtimes: which the policy means, and what their launch must have been.
import { sha256Hex } from '@bagcheck/nix'
import { describe, expect, test } from 'vitest'
import type { Decision, Facts } from '../src/index.ts'
import {
  codesOf,
  compile,
  factsWith,
  judge,
  ORDERS,
  policySource,
  verified,
  type Edit,
} from './installation.ts'

const UNIT = 'unit: { launcher: bagcheck-exec, name: orders }'
/** What the processes of these tests may have; the unit's own word is another matter. */
const BOUNDS = 'boundingSet: [CAP_CHOWN, CAP_KILL, CAP_NET_BIND_SERVICE]'
type Editing = Parameters<Edit>[0]

const messagesOf = (decision: Decision): string =>
  decision.allow ? '' : decision.reasons.map(({ message }) => message).join('\n')

/** A change that a test makes to facts which pass. */
const table = (rows: readonly [string, string | readonly string[], Edit][]) =>
  rows.map(([name, codes, edit]) => ({ name, codes: [codes].flat(), edit }))

describe('a container', () => {
  const policy = (selectors: string, ...more: string[]) =>
    verified(
      policySource([
        UNIT,
        [`unit: { launcher: oci, ${selectors} }`, BOUNDS, ...more].join('\n    '),
      ]),
    )
  const container = (edit: Edit = () => undefined): Facts =>
    factsWith((facts) => {
      facts.unit.launcher = 'oci'
      facts.unit.name = 'orders-7f3a'
      facts.unit.container = {
        ...{ id: 'orders-7f3a', runtime: 'runc', stateDir: '/run/runc', bundle: '/b' },
        annotations: { 'io.kubernetes.cri.sandbox-namespace': 'shop' },
        config: { path: '/b/config.json', sha256: sha256Hex('config'), unchanged: true },
        ...{ capabilities: ['CAP_KILL'], seccomp: true, readonlyRoot: true, mounts: [] },
        namespaces: ['ipc', 'mnt', 'pid'],
        userMaps: null,
        store: 'host',
      }
      for (const process of facts.processes) {
        process.hostRoot = false
        process.seccomp = 2
        process.capabilities.bounding = '0000000000000020'
        process.inContainer = { pid: 1, sharedNamespaces: ['mnt', 'pid', 'user'], sharedRoot: true }
      }
      edit(facts)
    })
  const box = (facts: Editing) => facts.unit.container!
  const place = (facts: Editing) => facts.processes[0]!.inContainer!
  const ORDINARY = policy("container: 'orders-*'")

  test.each([
    "container: 'orders-*'",
    'container: orders-7f3a',
    "container: '*-7f3a', runtimes: [runc]",
    "container: '*', annotations: { io.kubernetes.cri.sandbox-namespace: shop }",
  ])('is meant by { %s }', (selectors) => {
    expect(codesOf(judge(container(), policy(selectors)))).toEqual([])
  })

  test.each([
    'container: orders',
    "container: 'orders-7f3*b'",
    'container: orders-7f3.',
    "container: 'orders-*', runtimes: [crun]",
    "container: 'orders-*', annotations: { other: shop }",
    "container: 'orders-*', annotations: { constructor: '*' }",
    "container: '*', annotations: { io.kubernetes.cri.sandbox-namespace: 'shop-*' }",
  ])('is not meant by { %s }', (selectors) => {
    expect(codesOf(judge(container(), policy(selectors)))).toEqual(['ROLE_UNKNOWN'])
  })

  test('is no unit of a role for another launcher, and no other unit is one', () => {
    expect(codesOf(judge(container()))).toEqual(['ROLE_UNKNOWN'])
    expect(
      codesOf(
        judge(
          factsWith(() => undefined),
          ORDINARY,
        ),
      ),
    ).toEqual(['ROLE_UNKNOWN'])
    const claimed = container((facts) => (facts.unit.container = null))
    expect(codesOf(judge(claimed, ORDINARY))).toEqual(['ROLE_UNKNOWN'])
  })

  test('has namespaces of its own, which its processes share as far as the role says', () => {
    const other = container((facts) => {
      for (const process of facts.processes)
        process.namespaces = { ...process.namespaces, net: '4026539999', uts: '4026539998' }
    })
    expect(codesOf(judge(other, ORDINARY))).toEqual([])
    const apart = container((facts) => {
      const [main] = facts.processes
      const { namespaces } = main!
      const child = { ...main!, pid: main!.pid + 1, namespaces: { ...namespaces, net: '1' } }
      facts.processes.push(child)
    })
    expect(codesOf(judge(apart, ORDINARY))).toEqual(['CONTAINER_NAMESPACES'])
    const allowing = (kind: string): unknown =>
      policy("container: 'orders-*'", `allow: { namespaces: [${kind}] }`)
    expect(codesOf(judge(apart, allowing('net') as typeof ORDINARY))).toEqual([])
    expect(codesOf(judge(apart, allowing('uts') as typeof ORDINARY))).toEqual([
      'CONTAINER_NAMESPACES',
    ])
    for (const kind of ['mnt', 'pid', 'user'])
      expect(() => allowing(kind)).toThrow(expect.objectContaining({ code: 'POLICY_SOURCE' }))
  })

  const map = [{ inside: 0, outside: 200_000, count: 65_536 }]
  test.each(
    table([
      ['a store in its layers', 'CONTAINER_STORE', (f) => (box(f).store = 'container')],
      [
        'a store that it brings, when that of the host was checked',
        'CONTAINER_STORE',
        (f) => (f.roots[0]!.store = 'container'),
      ],
      ['a store that nobody verified', 'CONTAINER_STORE', (f) => (box(f).store = 'other')],
      [
        'the pid namespace of the host',
        'CONTAINER_NAMESPACES',
        (f) => (box(f).namespaces = ['mnt']),
      ],
      ['the mounts of the host', 'CONTAINER_NAMESPACES', (f) => (box(f).namespaces = ['pid'])],
      [
        'a process of other mounts',
        'CONTAINER_NAMESPACES',
        (f) => (place(f).sharedNamespaces = ['pid', 'user']),
      ],
      [
        'a process that is not in it',
        ['CONTAINER_NAMESPACES', 'ROOT_DIRECTORY'],
        (f) => (f.processes[0]!.inContainer = null),
      ],
      ['a process of another root', 'ROOT_DIRECTORY', (f) => (place(f).sharedRoot = false)],
      ['users of its own', 'USER_NAMESPACE', (f) => (box(f).userMaps = { uids: map, gids: map })],
    ]),
  )('with $name is denied', ({ codes, edit }) => {
    const found = codesOf(judge(container(edit), ORDINARY))
    expect([...new Set(found)].toSorted()).toEqual(codes)
  })

  test('has the users that the role maps, and no others', () => {
    const range = '[{ inside: 0, outside: 200000, count: 65536 }]'
    const mapped = policy(
      `container: 'orders-*', userNamespace: { uids: ${range}, gids: ${range} }`,
    )
    const withMap = (uids: typeof map) =>
      codesOf(
        judge(
          container((f) => (box(f).userMaps = { uids, gids: map })),
          mapped,
        ),
      )
    expect(withMap(map)).toEqual([])
    expect(withMap([])).toEqual(['USER_NAMESPACE'])
    expect(withMap([...map, ...map])).toEqual(['USER_NAMESPACE'])
    expect(withMap([{ ...map[0]!, outside: 0 }])).toEqual(['USER_NAMESPACE'])
    expect(withMap([{ ...map[0]!, count: 1 }])).toEqual(['USER_NAMESPACE'])
    expect(codesOf(judge(container(), mapped))).toEqual(['USER_NAMESPACE'])
  })

  const CONTRACT = policy(
    "container: 'orders-*'",
    "contract: { source: closure, file: 'orders-*/config.json' }",
  )
  test.each(
    table([
      ['the bytes of its configuration', [], () => undefined],
      [
        'another configuration',
        'CONTRACT_NOT_FROM_CLOSURE',
        (f) => (box(f).config.sha256 = sha256Hex('unit')),
      ],
      [
        'one that was written to since',
        'CONTRACT_CHANGED',
        (f) => (box(f).config.unchanged = false),
      ],
      [
        'no seccomp filter where it has one',
        'CONFINEMENT_MISMATCH',
        (f) => (f.processes[0]!.seccomp = 0),
      ],
      [
        'more capabilities than it says',
        'CONFINEMENT_MISMATCH',
        (f) => (f.processes[0]!.capabilities.bounding = '0000000000000021'),
      ],
    ]),
  )('whose closure states its launch, with $name', ({ codes, edit }) => {
    expect(codesOf(judge(container(edit), CONTRACT))).toEqual(codes)
  })
})

describe('a service of systemd whose closure states its launch', () => {
  const CGROUP = '/system.slice/orders.service'
  const POLICY = verified(
    policySource([
      UNIT,
      `unit: { launcher: systemd, name: orders.service, cgroup: ${CGROUP} }
    ${BOUNDS}
    contract: { source: closure, file: 'orders-*/orders.service' }`,
    ]),
  )
  const LINK = '/etc/systemd/system/orders.service'
  const fileOf = (name: string, content: string) => ({
    ...{
      path: LINK,
      file: `${ORDERS.root}/${name}`,
      sha256: sha256Hex(content),
      isStoreFile: true,
    },
  })
  const service = (edit: Edit = () => undefined): Facts =>
    factsWith((facts) => {
      facts.unit.launcher = 'systemd'
      facts.unit.name = 'orders.service'
      facts.unit.cgroup = CGROUP
      facts.unit.service = {
        fragment: fileOf('orders.service', 'unit'),
        ...{ dropIns: [], source: '', transient: false, needDaemonReload: false, asStarted: true },
        settings: {
          noNewPrivileges: true,
          capabilityBoundingSet: '0000000000000400',
          ambientCapabilities: '0000000000000000',
          systemCallFilter: { allowList: true, calls: 300 },
        },
      }
      for (const process of facts.processes) {
        process.seccomp = 2
        process.capabilities.bounding = '0000000000000400'
      }
      edit(facts)
    })
  const said = (facts: Editing) => facts.unit.service!
  const DROP_IN = {
    ...{ path: '/run/systemd/system/orders.service.d/override.conf', isStoreFile: false },
    ...{ file: '/run/systemd/system/orders.service.d/override.conf', sha256: sha256Hex('unit') },
  }

  test.each(
    table([
      ['is started from it', [], () => undefined],
      [
        'has a drop-in of the closure',
        [],
        (f) => said(f).dropIns.push(fileOf('lib/other.mjs', 'other')),
      ],
      ['has a drop-in', 'CONTRACT_OVERRIDDEN', (f) => said(f).dropIns.push(DROP_IN)],
      [
        'has a drop-in of another closure',
        'CONTRACT_OVERRIDDEN',
        (f) => said(f).dropIns.push({ ...DROP_IN, isStoreFile: true }),
      ],
      [
        'is a copy of the file',
        'CONTRACT_NOT_FROM_CLOSURE',
        (f) => (said(f).fragment!.isStoreFile = false),
      ],
      [
        'has other bytes',
        'CONTRACT_NOT_FROM_CLOSURE',
        (f) => (said(f).fragment!.sha256 = sha256Hex('x')),
      ],
      [
        'is another file of the closure',
        'CONTRACT_NOT_FROM_CLOSURE',
        (f) => (said(f).fragment = fileOf('lib/other.mjs', 'other')),
      ],
      ['has no file', 'CONTRACT_NOT_FROM_CLOSURE', (f) => (said(f).fragment = null)],
      ['is transient', 'CONTRACT_NOT_FROM_CLOSURE', (f) => (said(f).transient = true)],
      ['was generated', 'CONTRACT_NOT_FROM_CLOSURE', (f) => (said(f).source = '/etc/fstab')],
      ['is not told of', 'CONTRACT_NOT_FROM_CLOSURE', (f) => (f.unit.service = null)],
      ['waits for a reload', 'CONTRACT_CHANGED', (f) => (said(f).needDaemonReload = true)],
      ['was started before a reload', 'CONTRACT_CHANGED', (f) => (said(f).asStarted = false)],
      ['has no filter', 'CONFINEMENT_MISMATCH', (f) => (f.processes[0]!.seccomp = 0)],
      [
        'may have more capabilities',
        'CONFINEMENT_MISMATCH',
        (f) => (f.processes[0]!.capabilities.bounding = '0000000000000401'),
      ],
    ]),
  )('that $name', ({ codes, edit }) => {
    expect(codesOf(judge(service(edit), POLICY))).toEqual(codes)
  })

  test('names the drop-in', () => {
    const decision = judge(
      service((f) => said(f).dropIns.push(DROP_IN)),
      POLICY,
    )
    expect(messagesOf(decision)).toContain(DROP_IN.path)
  })

  test('needs nothing of the kind where the role does not ask for it', () => {
    const policy = verified(
      policySource([
        UNIT,
        `unit: { launcher: systemd, name: orders.service, cgroup: ${CGROUP} }\n    ${BOUNDS}`,
      ]),
    )
    expect(
      codesOf(
        judge(
          service((f) => (f.unit.service = null)),
          policy,
        ),
      ),
    ).toEqual([])
    expect(
      codesOf(
        judge(
          service((f) => (f.processes[0]!.seccomp = 0)),
          policy,
        ),
      ),
    ).toEqual([])
  })
})

describe('a policy', () => {
  test.each([
    [
      'a container by nothing',
      "unit: { launcher: oci, container: '*' }",
      'annotations that select',
    ],
    ['a container without id', 'unit: { launcher: oci }', 'container'],
    ['a container with a blank', "unit: { launcher: oci, container: 'a b' }", 'container'],
    ['another runtime', 'unit: { launcher: oci, container: a, runtimes: [youki] }', 'runtimes'],
    [
      'a user manager',
      'unit: { launcher: systemd, name: user@1000.service, cgroup: /user.slice/x }',
      'user manager',
    ],
    [
      'a contract that nobody can state',
      `${UNIT}\n    contract: { source: closure, file: 'orders-*/orders.service' }`,
      'bagcheck exec',
    ],
    [
      'a contract from elsewhere',
      'unit: { launcher: oci, container: a }\n    contract: { source: host, file: a/b }',
      'source',
    ],
  ])('that names %s does not compile', (_name, unit, message) => {
    expect(() => compile(policySource([UNIT, unit]))).toThrow(
      expect.objectContaining({
        problems: [expect.objectContaining({ message: expect.stringContaining(message) })],
      }),
    )
  })
})
