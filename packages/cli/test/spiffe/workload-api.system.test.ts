// From the approved bag to mTLS between two services, with a gRPC library of others on a relinked Node: real
// Nix closures, a real broker, a real agent, real units.
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { nixAvailable } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { SpiffeClient } from '../../../agent/test/fixture/spiffe-client.ts'
import { buildBag, stageWorkload } from './bags.ts'
import {
  AUDIENCE,
  startInstallation,
  TRUST_DOMAIN,
  type Program,
  type SpiffeInstallation,
} from './installation.ts'

const ORDERS = { name: 'orders', uid: 61_101 }
const REPORTS = { name: 'reports', uid: 61_102 }
const idOf = ({ name }: { name: string }): string => `spiffe://${TRUST_DOMAIN}/role/${name}`
const TTL_SECONDS = 10

type Said = Record<string, unknown>
/** The next event of a kind, from line `from` on. */
async function event(program: Program, kind: string, from = 0): Promise<Said> {
  const line = await program.line((text) => text.startsWith(`{"event":"${kind}"`), from)
  return JSON.parse(line) as Said
}

describe.runIf(nixAvailable())('services that speak SPIFFE', () => {
  let installation: SpiffeInstallation
  let root: string
  const start = (unit: typeof ORDERS, environment: Record<string, string> = {}): Program =>
    installation.exec(unit, [join(root, 'bin/node'), '--jitless', join(root, 'lib/workload.mjs')], {
      AUDIENCE,
      ...environment,
    })

  beforeAll(async () => {
    installation = await startInstallation()
    const folder = stageWorkload(installation.directory)
    root = await buildBag(installation.directory, 'node', { name: 'workload-1.0', folder })
    const entry = [
      'kind: interpreter',
      "executable: 'runtime-node-*/bin/node'",
      "script: 'workload-*/lib/workload.mjs'",
      "arguments: ['--jitless', '{script}']",
    ]
    await installation.open(
      [ORDERS, REPORTS].map((unit) => ({ ...unit, entry, root, ttl: TTL_SECONDS })),
    )
  })
  afterAll(() => installation[Symbol.asyncDispose]())

  test('get SVIDs of their own, and know each other by them', async () => {
    const orders = start(ORDERS)
    const { port } = await event(orders, 'serving')
    const reports = start(REPORTS, { PEER: `127.0.0.1:${String(port)}` })
    const [mine, other] = [await event(orders, 'svid'), await event(reports, 'svid')]
    expect([mine['id'], other['id']]).toEqual([idOf(ORDERS), idOf(REPORTS)])
    expect(await event(reports, 'server')).toMatchObject({ id: `URI:${idOf(ORDERS)}` })
    expect(await event(orders, 'caller')).toMatchObject({ id: `URI:${idOf(REPORTS)}` })
    expect(await event(reports, 'answer')).toMatchObject({ text: 'hello' })
    expect(await event(orders, 'jwt')).toMatchObject({ id: idOf(ORDERS), valid: idOf(ORDERS) })
    // A new certificate at half the life of the first.
    const next = await event(orders, 'svid', orders.lines.length)
    expect(next['serial']).not.toBe(mine['serial'])
  })

  test('two processes of one unit share neither key nor certificate', async () => {
    const [one, two] = [start(ORDERS), start(ORDERS)]
    const [first, second] = [await event(one, 'svid'), await event(two, 'svid')]
    expect(first['id']).toBe(second['id'])
    expect(first['serial']).not.toBe(second['serial'])
  })

  test('that are in no unit get none, and hear why', async () => {
    using client = new SpiffeClient(installation.spiffeSocket)
    const { end } = await client.stream('FetchX509SVID').next()
    expect([end?.code, end?.details.split(':')[0]]).toEqual([7, 'UNIT_NONE'])
    const jwt = await client.call('FetchJWTSVID', { audience: [AUDIENCE] })
    expect(jwt.code).toBe(7)
    const bundles = await client.stream('FetchX509Bundles').next()
    expect(Object.keys(bundles.message?.bundles ?? {})).toEqual([`spiffe://${TRUST_DOMAIN}`])
  })

  test('that run under another user than the role’s get none', async () => {
    const program = start({ name: 'orders', uid: 61_109 })
    expect(await event(program, 'end')).toMatchObject({ code: 7 })
    expect(program.lines.join('\n')).toContain('UID_NOT_ALLOWED')
  })

  test('lose their stream when the bag is altered, and get none until it is mended', async () => {
    const orders = start(ORDERS)
    await event(orders, 'svid')
    const data = join(root, 'share/note.json')
    const before = readFileSync(data)
    // Of the same length and inode, as an attacker with root would.
    writeFileSync(data, '{"note":"other"}', { flag: 'r+' })
    try {
      const { code, details } = await event(orders, 'end')
      expect([code, String(details).split(':')[0]]).toEqual([7, 'CONTENT_MISMATCH'])
      const again = start(REPORTS)
      expect(await event(again, 'end')).toMatchObject({ code: 7 })
      expect(await event(again, 'no-jwt')).toMatchObject({ code: 7 })
    } finally {
      writeFileSync(data, before, { flag: 'r+' })
    }
    expect(await event(start(REPORTS), 'svid')).toMatchObject({ id: idOf(REPORTS) })
  })
})
