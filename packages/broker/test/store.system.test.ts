// One suite over both databases: what the store promises, whichever it is. Crashes, full disks and lost
// connections are in store-faults.system.test.ts.
import { createHash } from 'node:crypto'
import { copyFileSync, existsSync } from 'node:fs'
import {
  generateNoteKey,
  MAX_ENTRY_BYTES,
  parseEntryBundle,
  rootAt,
  tileNodeReader,
  verifyConsistency,
} from '@bagcheck/log'
import { postgresAvailable } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { sql } from 'kysely'
import { openEngine, type Engine, type EngineConfig } from '../src/store/engine.ts'
import { storeError } from '../src/store/failure.ts'
import { bodyId } from '../src/store/schema.ts'
import type { Store } from '../src/store/store.ts'
import { verifyLog } from '../src/store/verify-log.ts'
import {
  attestation,
  authority,
  ban,
  checkpointOf,
  decision,
  denial,
  engines,
  enrolment,
  logKey,
  NOW,
  open,
  openWithNode,
  ORIGIN,
  policy,
  proveAll,
  tamper,
  tamperSql,
  type Databases,
} from './store/fixtures.ts'

const refusedWith = (code: string) => expect.objectContaining({ code })
const digest = (text: string) => createHash('sha256').update(text).digest('hex')

/** How many of the calls succeeded, and the codes of the others. */
async function race(calls: readonly Promise<unknown>[]): Promise<{ won: number; codes: string[] }> {
  const results = await Promise.allSettled(calls)
  const lost = results.filter((result) => result.status === 'rejected')
  const codes = [...new Set(lost.map(({ reason }) => String(reason.code)))]
  return { won: results.length - lost.length, codes }
}

describe.each(engines)('the store on $name', ({ name, open: openDatabases }) => {
  const there = name === 'SQLite' || postgresAvailable()
  let databases: Databases
  beforeAll(async () => {
    if (there) databases = await openDatabases()
  })
  afterAll(() => databases?.[Symbol.asyncDispose]())

  const claim = (title: string, run: (config: EngineConfig) => Promise<void>): void =>
    test.skipIf(!there)(title, async () => run(await databases.fresh()))

  describe('the log', () => {
    claim('is empty at first, and its checkpoint says so', async (config) => {
      await using store = await open(config)
      expect(await checkpointOf(store)).toMatchObject({ origin: ORIGIN, size: 0 })
      expect(await store.health()).toEqual({ size: 0, waiting: 0 })
      expect(await store.entry(0)).toBeUndefined()
    })

    claim('gives 1,000 concurrent decisions contiguous indices in order', async (config) => {
      await using store = await openWithNode(config)
      const calls = Array.from({ length: 1_000 }, (_, i) => store.commitDecision(decision(i)))
      const committed = await Promise.all(calls)
      expect(committed.map(({ index }) => index)).toEqual(committed.map((_, i) => i + 2))
      expect(committed.every(({ index, treeSize }) => index < treeSize)).toBe(true)
      expect((await checkpointOf(store)).size).toBe(1_002)
      const refs = await proveAll(store)
      expect(refs.slice(2)).toEqual(committed.map((_, i) => `decision-${i}`))
    })

    claim(
      'has signed a checkpoint that covers an entry before its caller knows',
      async (config) => {
        await using store = await openWithNode(config)
        for (let i = 0; i < 20; i++) {
          const { treeSize } = await store.commitDecision(decision(i))
          expect((await checkpointOf(store)).size).toBeGreaterThanOrEqual(treeSize)
        }
      },
    )

    claim('proves every earlier checkpoint a prefix of the last', async (config) => {
      await using store = await openWithNode(config)
      const earlier = [await checkpointOf(store)]
      for (let i = 0; i < 30; i++) {
        await store.commitDecision(decision(i))
        earlier.push(await checkpointOf(store))
      }
      const { size: to, root: toRoot } = await checkpointOf(store)
      for (const { size: from, root: fromRoot } of earlier) {
        const proof = await store.consistencyProof(from, to)
        verifyConsistency({ from, to, fromRoot, toRoot, proof })
      }
    })

    claim('gives tiles and bundles from which a client computes the root', async (config) => {
      await using store = await openWithNode(config)
      await Promise.all(Array.from({ length: 300 }, (_, i) => store.commitDecision(decision(i))))
      const { size, root } = await checkpointOf(store)
      const paths: [number, number, number][] = [
        [0, 0, 256],
        [0, 1, 46],
        [1, 0, 1],
      ]
      const tiles = new Map<string, Uint8Array>()
      for (const [level, index, width] of paths) {
        const tile = await store.tile(level, index, width)
        if (tile !== undefined) tiles.set(`${level}/${index}/${width}`, tile)
      }
      const reader = tileNodeReader(
        size,
        (t) => tiles.get(`${t.level}/${t.index}/${t.width}`) ?? new Uint8Array(),
      )
      expect(Buffer.from(rootAt(size, reader))).toEqual(Buffer.from(root))
      const bundle = parseEntryBundle((await store.entryBundle(1, 46)) ?? new Uint8Array(), 46)
      expect(Buffer.from(bundle[45] ?? []).toString()).toBe('leaf of decision 299')
    })

    claim('has no tile, bundle, entry or proof beyond its end', async (config) => {
      await using store = await openWithNode(config)
      for (const [level, index, width] of [
        [0, 0, 3],
        [0, 1, 1],
        [1, 0, 1],
        [0, 0, 0],
        [0, 0, 257],
        [-1, 0, 1],
        [0, -1, 1],
        [0.5, 0, 1],
        [7, 0, 1],
        [0, 2 ** 50, 1],
      ] as const) {
        expect(await store.tile(level, index, width)).toBeUndefined()
        if (level === 0) expect(await store.entryBundle(index, width)).toBeUndefined()
      }
      const refused = refusedWith('LOG_RANGE')
      for (const [index, size] of [
        [2, 2],
        [0, 3],
        [-1, 2],
        [0, 0],
        [0.5, 2],
        [0, 2 ** 53],
      ] as const)
        await expect(store.inclusionProof(index, size)).rejects.toEqual(refused)
      for (const [from, to] of [
        [0, 2],
        [2, 1],
        [1, 3],
        [1, Number.NaN],
      ] as const)
        await expect(store.consistencyProof(from, to)).rejects.toEqual(refused)
      await expect(store.entry(-1)).rejects.toEqual(refused)
    })

    claim('keeps the largest leaf and a body of megabytes', async (config) => {
      await using store = await openWithNode(config)
      const leaf = new Uint8Array(MAX_ENTRY_BYTES).fill(7)
      const evidence = Buffer.alloc(20 * 1024 * 1024, 'evidence')
      const { index } = await store.commitDecision(decision(1, { leaf, evidence }))
      expect(Buffer.from((await store.entry(index))?.leaf ?? [])).toEqual(Buffer.from(leaf))
      const kept = await store.body({
        entryIndex: index,
        part: 'evidence',
        sha256: createHash('sha256').update(evidence).digest('hex'),
      })
      expect(kept?.length).toBe(evidence.length)
    })
  })

  describe('decisions', () => {
    claim('tell when each node and each role last succeeded', async (config) => {
      await using store = await openWithNode(config)
      await store.commitEnrolment(enrolment(2))
      await store.commitDecision(decision(1))
      const last = await store.commitDecision(decision(2, { issuedAt: NOW + 9 }))
      await store.commitDecision(decision(3, { allow: false, issuedAt: NOW + 20 }))
      expect(await store.nodeSuccesses()).toEqual([['node-1', NOW + 9]])
      expect(await store.successesFrom(0)).toEqual({
        nodes: [['node-1', NOW + 9]],
        roles: [['orders', 'orders.service', NOW + 9]],
      })
      expect(await store.successesFrom(last.index + 1)).toEqual({ nodes: [], roles: [] })
    })

    claim('of one unit are found behind hundreds of others', async (config) => {
      await using store = await openWithNode(config)
      await store.commitDecision(denial(1_000, { unit: 'ledger' }))
      await store.commitDecision(denial(1_001, { unit: 'ledger' }))
      const others = Array.from({ length: 250 }, (_, i) => store.commitDecision(denial(i)))
      await Promise.all(others)
      const found = await store.decisions({ unit: 'ledger', limit: 1 })
      expect(found.map(({ id }) => id)).toEqual(['decision-1001'])
      expect(await store.decisions({ unit: 'nobody' })).toEqual([])
    })

    claim('are found again by id, newest first or in order after an entry', async (config) => {
      await using store = await openWithNode(config)
      for (let i = 0; i < 4; i++) {
        const role = i < 2 ? 'orders' : 'reports'
        await store.commitDecision(i % 2 === 0 ? decision(i, { role }) : denial(i, { role }))
      }
      const { expect: _, leaf, body, evidence, ...record } = decision(0)
      expect(await store.decision('decision-0')).toEqual({
        ...record,
        entryIndex: 2,
        evidenceSha256: digest(Buffer.from(evidence).toString()),
      })
      expect(await store.decision('decision-1')).toMatchObject({
        allow: false,
        nonce: null,
        counter: null,
        expiresAt: null,
        code: 'NO_ROLE',
      })
      expect(await store.decision('decision-9')).toBeUndefined()
      const ids = async (query?: Parameters<Store['decisions']>[0]) =>
        (await store.decisions(query)).map(({ id }) => id.slice('decision-'.length)).join('')
      expect(await ids()).toBe('3210')
      expect(await ids({ after: 3 })).toBe('23')
      expect(await ids({ before: 4 })).toBe('10')
      expect(await ids({ limit: 1 })).toBe('3')
      expect(await ids({ after: -1, limit: 1 })).toBe('0')
      expect(await ids({ allow: false })).toBe('31')
      expect(await ids({ role: 'reports', allow: true })).toBe('2')
      for (const query of [{ limit: 0 }, { after: 0.5 }, { before: -1 }])
        await expect(store.decisions(query)).rejects.toEqual(refusedWith('LOG_RANGE'))
      const entry = await store.entry(2)
      expect(entry).toMatchObject({ index: 2, kind: 'decision', ref: 'decision-0' })
      expect(Buffer.from(entry?.leaf ?? [])).toEqual(leaf)
      const envelope = { entryIndex: 2, part: 'envelope', sha256: entry?.bodySha256 ?? '' } as const
      expect(Buffer.from((await store.body(envelope)) ?? [])).toEqual(body)
    })

    claim('of 100 concurrent requests with one nonce exactly one commits', async (config) => {
      await using store = await openWithNode(config)
      const calls = Array.from({ length: 100 }, (_, i) =>
        store.commitDecision(decision(i, { nonce: 'the same' })),
      )
      expect(await race(calls)).toEqual({ won: 1, codes: ['NONCE_REUSED'] })
      await expect(store.commitDecision(decision(100, { nonce: 'the same' }))).rejects.toEqual(
        refusedWith('NONCE_REUSED'),
      )
      expect((await store.head()).size).toBe(3)
    })

    claim('of 100 concurrent requests with one counter exactly one commits', async (config) => {
      await using store = await openWithNode(config)
      await store.commitEnrolment(enrolment(2))
      const calls = Array.from({ length: 100 }, (_, i) =>
        store.commitDecision(decision(i, { counter: 7 })),
      )
      expect(await race(calls)).toEqual({ won: 1, codes: ['COUNTER_REUSED'] })
      await store.commitDecision(decision(100, { counter: 7, node: 'node-2' }))
    })

    claim('under a policy that has changed do not commit, denials do', async (config) => {
      await using store = await openWithNode(config)
      await store.commitPolicy(policy(2))
      const refused = refusedWith('POLICY_CHANGED')
      await expect(store.commitDecision(decision(1))).rejects.toEqual(refused)
      for (const policyVersion of [null, 3])
        await expect(
          store.commitDecision(decision(1, { expect: { policyVersion } })),
        ).rejects.toEqual(refused)
      await store.commitDecision(denial(1))
      await store.commitDecision(decision(2, { expect: { policyVersion: 2 } }))
    })

    claim('without any policy never allow', async (config) => {
      await using store = await open(config)
      await store.commitEnrolment(enrolment(1))
      await expect(
        store.commitDecision(decision(1, { expect: { policyVersion: null } })),
      ).rejects.toEqual(refusedWith('POLICY_CHANGED'))
    })

    claim('that arrive with a policy in one batch are judged in order', async (config) => {
      await using store = await openWithNode(config)
      const [before, installed, after] = await Promise.allSettled([
        store.commitDecision(decision(1)),
        store.commitPolicy(policy(2)),
        store.commitDecision(decision(2)),
      ])
      expect([before.status, installed.status, after.status]).toEqual([
        ...['fulfilled', 'fulfilled', 'rejected'],
      ])
    })

    claim('that are refused leave no trace and hinder no other', async (config) => {
      await using store = await openWithNode(config)
      const calls = Array.from({ length: 60 }, (_, i) =>
        store.commitDecision(
          i % 3 === 0 ? decision(i, { expect: { policyVersion: 9 } }) : decision(i),
        ),
      )
      expect(await race(calls)).toEqual({ won: 40, codes: ['POLICY_CHANGED'] })
      expect(await proveAll(store)).toHaveLength(42)
      // Neither nonce nor counter of a refused decision is spent.
      await store.commitDecision(decision(0))
      // Two bodies of each entry, and none of another.
      const ids = await tamper(config, (db) => db.selectFrom('body').select('id').execute())
      expect(ids).toHaveLength(2 * 43)
    })

    claim('that only the database refuses fail alone', async (config) => {
      await using store = await openWithNode(config)
      const results = await Promise.allSettled([
        store.commitDecision(decision(1)),
        store.commitDecision(decision(2, { id: 'decision-1' })),
        store.commitDecision(decision(3)),
      ])
      expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
      expect(results[1]).toMatchObject({ reason: { code: 'STORE_CONFLICT' } })
      expect(await proveAll(store)).toEqual(['node-1', '1', 'decision-1', 'decision-3'])
    })

    claim('with what no column can hold are a mistake of ours', async (config) => {
      await using store = await openWithNode(config)
      const mistakes = [
        { leaf: new Uint8Array(MAX_ENTRY_BYTES + 1) },
        { leaf: new Uint8Array() },
        { unit: 'a\0b' },
        { audience: '\ud800' },
        { role: 'x'.repeat(8_193) },
        { counter: -1 },
        { issuedAt: 0.5 },
        { counter: 2 ** 53 },
      ]
      for (const mistake of mistakes)
        await expect(store.commitDecision(decision(1, mistake))).rejects.toThrow(TypeError)
      expect((await store.head()).size).toBe(2)
    })
  })

  describe('nodes', () => {
    claim('are found again, with their join token', async (config) => {
      await using store = await open(config)
      await store.commitEnrolment(enrolment(1))
      await store.commitEnrolment(enrolment(2))
      const expected = {
        ...enrolment(1).node,
        enrolledEntry: 0,
        ban: null,
        joinToken: { id: 'token-1', bodySha256: digest('join token 1') },
      }
      expect(await store.node('node-1')).toEqual(expected)
      expect((await store.nodes()).map(({ id }) => id)).toEqual(['node-1', 'node-2'])
      expect(await store.node('node-3')).toBeUndefined()
      expect(await store.entry(0)).toMatchObject({ kind: 'enrolment', ref: 'node-1' })
    })

    claim('of 20 that use one join token at once exactly one is enrolled', async (config) => {
      await using store = await open(config)
      const { joinToken } = enrolment(0)
      const calls = Array.from({ length: 20 }, (_, i) =>
        store.commitEnrolment(enrolment(i, { joinToken })),
      )
      expect(await race(calls)).toEqual({ won: 1, codes: ['JOIN_TOKEN_USED'] })
      expect(await store.nodes()).toHaveLength(1)
    })

    claim('keep their id: enrolling it again is refused and spends no token', async (config) => {
      await using store = await openWithNode(config)
      const again = enrolment(1, { joinToken: enrolment(2).joinToken })
      await expect(store.commitEnrolment(again)).rejects.toEqual(refusedWith('STORE_CONFLICT'))
      await store.commitEnrolment(enrolment(2))
    })

    claim('that are banned get no token, and that they asked is kept', async (config) => {
      await using store = await openWithNode(config)
      const first = await store.banNode(ban('node-1'))
      await expect(store.commitDecision(decision(1))).rejects.toEqual(refusedWith('NODE_BANNED'))
      await store.commitDecision(denial(1))
      const { index } = await store.banNode(ban('node-1', 'again'))
      expect(index).toBe(first.index)
      expect((await store.node('node-1'))?.ban).toEqual({
        entry: first.index,
        at: NOW,
        reason: 'cloned key',
      })
      expect(await store.entry(first.index)).toMatchObject({ kind: 'ban', ref: 'node-1' })
    })

    claim('that are banned while a decision is on its way get no token', async (config) => {
      await using store = await openWithNode(config)
      const [banned, decided] = await Promise.allSettled([
        store.banNode(ban('node-1')),
        store.commitDecision(decision(1)),
      ])
      expect(banned.status).toBe('fulfilled')
      expect(decided).toMatchObject({ status: 'rejected', reason: { code: 'NODE_BANNED' } })
    })

    claim('that have expired or were never enrolled get no token', async (config) => {
      await using store = await openWithNode(config)
      for (const issuedAt of [NOW + 86_400, NOW + 86_401])
        await expect(store.commitDecision(decision(1, { issuedAt }))).rejects.toEqual(
          refusedWith('NODE_EXPIRED'),
        )
      await store.commitDecision(decision(1, { issuedAt: NOW + 86_399 }))
      const unknown = refusedWith('NODE_UNKNOWN')
      await expect(store.commitDecision(decision(2, { node: 'other' }))).rejects.toEqual(unknown)
      await expect(store.commitDecision(denial(2, { node: 'other' }))).rejects.toEqual(unknown)
      await expect(store.banNode(ban('other'))).rejects.toEqual(unknown)
    })
  })

  describe('policies', () => {
    claim('are installed one after the other and in no other order', async (config) => {
      await using store = await open(config)
      expect(await store.installedPolicy()).toBeUndefined()
      const refused = refusedWith('POLICY_VERSION')
      for (const version of [0, 2])
        await expect(store.commitPolicy(policy(version))).rejects.toEqual(refused)
      await store.commitPolicy(policy(1))
      await expect(store.commitPolicy(policy(1))).rejects.toEqual(refused)
      await store.commitPolicy(policy(2))
      await expect(store.commitPolicy(policy(1))).rejects.toEqual(refused)
      expect(await store.installedPolicy()).toEqual({
        version: 2,
        sha256: digest('{"version":2}'),
        envelopeSha256: digest('envelope of policy 2'),
        entryIndex: 1,
        installedAt: NOW + 2,
      })
      expect(await store.policy(1)).toMatchObject({ version: 1, entryIndex: 0 })
      expect(await store.policy(3)).toBeUndefined()
    })

    claim(
      'of 20 that want to be the next version at once exactly one is installed',
      async (config) => {
        await using store = await openWithNode(config)
        const calls = Array.from({ length: 20 }, () => store.commitPolicy(policy(2)))
        expect(await race(calls)).toEqual({ won: 1, codes: ['POLICY_VERSION'] })
      },
    )
  })

  describe('authorities', () => {
    const take = (
      store: Store,
      ...steps: [string, Parameters<typeof authority>[1], Parameters<typeof authority>[2]?][]
    ) => Promise.all(steps.map((step) => store.commitAuthority(authority(...step))))
    const states = async (store: Store): Promise<string[]> =>
      (await store.authorities()).map(({ id, state }) => `${id} ${state}`)
    const signedBy = (i: number, id: string, expiresAt = NOW + 300) =>
      decision(i, { expiresAt, expect: { policyVersion: 1, authority: id } })

    claim('take the steps of their life, each an entry, also all at once', async (config) => {
      await using store = await openWithNode(config)
      const committed = await take(
        store,
        ['a', 'prepare'],
        ['a', 'activate'],
        ['b', 'prepare'],
        ['b', 'activate', { supersedes: ['a'] }],
        ['a', 'taint'],
        ['a', 'revoke'],
      )
      expect(committed.map(({ index }) => index)).toEqual([2, 3, 4, 5, 6, 7])
      expect(await states(store)).toEqual(['a revoked', 'b active'])
      expect((await store.authorities())[0]?.entries).toEqual({
        ...{ prepared: 2, activated: 3, tainted: 6, removed: 7 },
      })
      expect((await store.authorities(4)).map(({ id }) => id)).toEqual(['a', 'b'])
      expect(await store.authorities(7)).toEqual([])
      expect((await proveAll(store)).slice(2)).toEqual(['a', 'a', 'b', 'b', 'a', 'a'])
    })

    claim('take no step that does not follow, and none twice', async (config) => {
      await using store = await openWithNode(config)
      const unknown = refusedWith('AUTHORITY_UNKNOWN')
      for (const action of ['activate', 'taint', 'revoke', 'retire'] as const)
        await expect(store.commitAuthority(authority('a', action))).rejects.toThrow(unknown)
      await take(store, ['a', 'prepare'])
      const wrong = refusedWith('AUTHORITY_STATE')
      const refused = (action: Parameters<typeof authority>[1], at = NOW) =>
        expect(store.commitAuthority(authority('a', action, { at }))).rejects.toThrow(wrong)
      await refused('prepare')
      await refused('revoke')
      await refused('retire', NOW + 86_400)
      const [first] = await take(store, ['a', 'activate'])
      const [again] = await take(store, ['a', 'activate'])
      expect(again?.index).toBe(first?.index)
      const [tainted] = await take(store, ['a', 'taint'])
      expect((await take(store, ['a', 'taint']))[0]?.index).toBe(tainted?.index)
      await refused('activate')
      await take(store, ['a', 'revoke'])
      await refused('taint')
      await refused('prepare')
      await take(store, ['b', 'prepare'])
      await store.commitAuthority(authority('b', 'retire', { at: NOW + 86_401 }))
      expect(await states(store)).toEqual(['a revoked', 'b retired'])
      expect((await checkpointOf(store)).size).toBe(8)
    })

    claim('sign while they are active and no longer than they live', async (config) => {
      await using store = await openWithNode(config)
      const changed = refusedWith('AUTHORITY_CHANGED')
      const refused = (i: number, id: string, expiresAt?: number) =>
        expect(store.commitDecision(signedBy(i, id, expiresAt))).rejects.toThrow(changed)
      await refused(1, 'a')
      await take(store, ['a', 'prepare'])
      await refused(1, 'a')
      await take(store, ['a', 'activate'])
      await refused(1, 'a', NOW + 86_401)
      await store.commitDecision(signedBy(1, 'a', NOW + 86_400))
      await take(store, ['b', 'prepare'], ['b', 'activate', { supersedes: ['a'] }])
      await refused(2, 'a')
      await store.commitDecision(signedBy(2, 'b'))
      await take(store, ['b', 'taint'])
      await refused(3, 'b')
      // A denial stands whoever signs.
      await store.commitDecision(denial(3, { expect: { policyVersion: 1, authority: 'b' } }))
    })

    claim('that are tainted while a decision is on its way sign nothing', async (config) => {
      await using store = await openWithNode(config)
      await take(store, ['a', 'prepare'], ['a', 'activate'])
      const outcomes = await Promise.allSettled([
        store.commitDecision(signedBy(1, 'a')),
        store.commitAuthority(authority('a', 'taint')),
        store.commitDecision(signedBy(2, 'a')),
      ])
      expect(outcomes.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled', 'rejected'])
      expect((await store.decisions()).map(({ id }) => id)).toEqual(['decision-1'])
    })

    claim('tainted through one broker sign nothing through another', async (config) => {
      await using one = await openWithNode(config)
      if ('sqlite' in config) return // belongs to one broker
      await using two = await open(config)
      await take(one, ['a', 'prepare'], ['a', 'activate'])
      await two.commitDecision(signedBy(1, 'a'))
      await take(two, ['a', 'taint'])
      await expect(one.commitDecision(signedBy(2, 'a'))).rejects.toThrow(
        refusedWith('AUTHORITY_CHANGED'),
      )
    })
  })

  describe('attestations', () => {
    claim('are found again; the same envelope is one entry', async (config) => {
      await using store = await open(config)
      const calls = Array.from({ length: 5 }, () => store.commitAttestation(attestation(1)))
      expect((await Promise.all(calls)).map(({ index }) => index)).toEqual([0, 0, 0, 0, 0])
      expect((await store.commitAttestation(attestation(1))).index).toBe(0)
      await store.commitAttestation(attestation(2))
      const expected = {
        entryIndex: 0,
        closureDigest: 'closure-1',
        root: '/nix/store/1',
        signerKey: 'ci-main',
        envelopeSha256: digest('envelope of attestation 1'),
        manifestSha256: digest('manifest 1'),
        filesSha256: digest('files 1'),
        submittedAt: NOW,
      }
      expect(await store.attestation('closure-1')).toEqual(expected)
      expect(await store.attestations()).toMatchObject([expected, { entryIndex: 1 }])
      expect(await store.attestation('closure-3')).toBeUndefined()
      const { manifestSha256: sha256 } = expected
      const manifest = { entryIndex: 0, part: 'manifest', sha256 } as const
      expect(Buffer.from((await store.body(manifest)) ?? []).toString()).toBe('manifest 1')
    })

    claim('of one closure by two signers are both kept, the newest first asked', async (config) => {
      await using store = await open(config)
      await store.commitAttestation(attestation(1))
      const body = Buffer.from('another envelope')
      await store.commitAttestation(attestation(1, { signerKey: 'ci-2', body }))
      expect(await store.attestation('closure-1')).toMatchObject({ signerKey: 'ci-2' })
      const signers = (await store.attestations('closure-1')).map(({ signerKey }) => signerKey)
      expect(signers).toEqual(['ci-main', 'ci-2'])
    })
  })

  describe('after a restart', () => {
    claim('everything is there and goes on', async (config) => {
      const store = await openWithNode(config)
      await Promise.all(Array.from({ length: 50 }, (_, i) => store.commitDecision(decision(i))))
      const before = await checkpointOf(store)
      await store.close()
      await expect(store.commitDecision(decision(50))).rejects.toEqual(
        refusedWith('STORE_UNAVAILABLE'),
      )
      await using again = await open(config)
      expect(await checkpointOf(again)).toEqual(before)
      await expect(again.commitDecision(decision(51, { nonce: 'nonce-3' }))).rejects.toEqual(
        refusedWith('NONCE_REUSED'),
      )
      expect((await again.commitDecision(decision(50))).index).toBe(52)
      const to = await checkpointOf(again)
      const proof = await again.consistencyProof(before.size, to.size)
      const claimed = { from: before.size, to: to.size, fromRoot: before.root, toRoot: to.root }
      verifyConsistency({ ...claimed, proof })
      expect(await again.decisions({ limit: 1_000 })).toHaveLength(51)
    })

    claim('a closed SQLite file is whole: copied alone it is the log', async (config) => {
      if (!('sqlite' in config)) return
      const store = await openWithNode(config)
      await store.commitDecision(decision(1))
      const before = await checkpointOf(store)
      await store.close()
      const { file } = config.sqlite
      expect(existsSync(`${file}-wal`)).toBe(false)
      copyFileSync(file, `${file}.copy`)
      await using copy = await open({ sqlite: { file: `${file}.copy` } })
      expect(await checkpointOf(copy)).toEqual(before)
    })

    claim('a log that was altered does not open, and opens again when mended', async (config) => {
      await (await openWithNode(config)).close()
      await tamperSql(config, "update entry set ref = ref, kind = 'ban'") // no part of the tree
      await (await open(config)).close()
      await tamperSql(config, 'update head set size = 1')
      await expect(open(config)).rejects.toEqual(refusedWith('LOG_CORRUPT'))
      await tamperSql(config, 'update head set size = 2')
      await (await open(config)).close()
    })

    claim('a body that was altered is refused when it is read', async (config) => {
      const store = await openWithNode(config)
      await store.commitDecision(decision(1))
      await store.close()
      const evidence = { entryIndex: 2, part: 'evidence', sha256: digest('evidence 1') } as const
      await tamper(config, (db) =>
        db
          .updateTable('body')
          .set({ bytes: Buffer.from('evidence 2') })
          .where('id', '=', bodyId(2, 'evidence'))
          .execute(),
      )
      await using again = await open(config)
      await expect(again.body(evidence)).rejects.toEqual(refusedWith('LOG_CORRUPT'))
    })

    claim('another log key is refused', async (config) => {
      await (await open(config)).close()
      const other = generateNoteKey(ORIGIN).secretKey
      await expect(open(config, { logKey: other })).rejects.toEqual(refusedWith('LOG_CORRUPT'))
      await using store = await open(config)
      expect((await checkpointOf(store)).size).toBe(0)
    })

    claim('a key that is malformed or of another origin is refused', async (config) => {
      await expect(open(config, { logKey: 'x' })).rejects.toEqual(refusedWith('NOTE_KEY'))
      await expect(open(config, { origin: 'other.test' })).rejects.toEqual(
        refusedWith('CHECKPOINT_ORIGIN'),
      )
    })

    claim('a schema of a newer version is refused', async (config) => {
      await (await open(config)).close()
      await tamperSql(config, 'update schema_version set version = 99')
      await expect(open(config)).rejects.toEqual(refusedWith('STORE_SCHEMA'))
    })
  })

  // 12 entries: the complete subtrees are 0/0 … 0/11, 1/0 … 1/5, 2/0 … 2/2, 3/0.
  describe('verification at start refuses', () => {
    let engine: Engine
    beforeAll(async () => {
      if (!there) return
      const config = await databases.fresh()
      await using store = await openWithNode(config)
      for (let i = 0; i < 10; i++) await store.commitDecision(decision(i))
      engine = openEngine(config, 'write')
      expect(
        await engine.db.transaction().execute((tx) => verifyLog(tx, engine.types, logKey.vkey)),
      ).toEqual(await store.head())
    })
    afterAll(() => engine?.close())

    const statements = (...texts: string[]) => texts
    test.skipIf(!there).each([
      [
        'a node that was altered',
        statements(`update node set hash = $hash where level = 2 and idx = 1`),
      ],
      ['a node that is gone', statements('delete from node where level = 3')],
      [
        'a node that the log does not have yet',
        statements('insert into node (level, idx, hash) values (0, 12, $hash)'),
      ],
      [
        'a node of a level that the log does not have yet',
        statements('insert into node (level, idx, hash) values (4, 0, $hash)'),
      ],
      ['a hash of another length', statements('update node set hash = $short where idx = 7')],
      ['a leaf that was altered', statements('update entry set leaf = $short where idx = 5')],
      ['an entry that is gone', statements('delete from entry where idx = 5')],
      ['a last entry that is gone', statements('delete from entry where idx = 11')],
      [
        'an entry too many',
        statements(
          "insert into entry (idx, kind, ref, leaf, body_sha256) values (12, 'ban', '', $short, '')",
        ),
      ],
      ['a head that was moved', statements('update head set size = 11')],
      ['a head with another root', statements('update head set root = $hash')],
      ['no head', statements('delete from head')],
      [
        'a checkpoint of another size',
        statements('update checkpoint set size = 13 where size = 12'),
      ],
      [
        'a checkpoint that was altered',
        statements("update checkpoint set note = replace(note, '12', '11') where size = 12"),
      ],
      [
        'an older state of the log than the one that was signed',
        statements(
          'delete from entry where idx >= 8',
          'delete from node where level = 0 and idx >= 8 or level = 1 and idx >= 4',
          'delete from node where level = 2 and idx >= 2',
          'update head set size = 8, root = (select hash from node where level = 3)',
        ),
      ],
    ])('%s', async (_, texts) => {
      const bytes = (hex: string) => (name === 'SQLite' ? `x'${hex}'` : `'\\x${hex}'::bytea`)
      const undo = new Error('rolled back')
      const altered = engine.db.transaction().execute(async (tx) => {
        for (const text of texts) {
          const whole = text.replace('$hash', bytes('42'.repeat(32))).replace('$short', bytes('42'))
          await sql.raw(whole).execute(tx)
        }
        await expect(verifyLog(tx, engine.types, logKey.vkey).catch(rethrowCoded)).rejects.toEqual(
          refusedWith('LOG_CORRUPT'),
        )
        throw undo
      })
      await expect(altered).rejects.toBe(undo)
    })
  })
})

/** As opening does. */
function rethrowCoded(cause: unknown): never {
  throw storeError(cause)
}
