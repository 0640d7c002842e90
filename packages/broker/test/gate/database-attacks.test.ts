// Whoever can write to the database between a stop and a start changes rows, and takes no token from it:
// what entries mean is read from the log, and rows that say something else end the start.
import { DatabaseSync } from 'node:sqlite'
import { ENROLMENT_SCHEMA, type Enrolment } from '@bagcheck/api'
import { ENROLMENT_V1, generateSigningKey, sha256Hex } from '@bagcheck/attest'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { signEntry } from '../../src/signed-entry.ts'
import { allowedDecisions, expectRefusal } from './answers.ts'
import {
  createInstallation,
  INSTALLATION,
  newNode,
  START,
  type Installation,
  type TestNode,
} from './installation.ts'

let self: Installation
let node: TestNode
beforeEach(async () => {
  self = await createInstallation()
  await self.ready()
  node = await self.enrol()
})
afterEach(() => self[Symbol.asyncDispose]())

/** Changes the database of a broker that is closed. */
function edit(...statements: string[]): void {
  const { store } = self.config
  if (!('sqlite' in store)) throw new TypeError('these tests edit a SQLite file')
  using database = new DatabaseSync(store.sqlite.file)
  for (const statement of statements) database.exec(statement)
}

/** Changes the database as above, expects the start to fail, and tells why. */
async function refusedAfter(...statements: string[]): Promise<string> {
  await self.broker.close()
  edit(...statements)
  const error = await self.restart().then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  expect(error).toMatchObject({ code: 'LOG_CORRUPT' })
  return (error as Error).message
}

const ban = (): Promise<Response> =>
  self.request('POST', `/v1/nodes/${node.id}/ban`, { reason: 'stolen' }, true)

test('a database that nobody touched is taken, with its nodes, bans and policy', async () => {
  const other = await self.enrol()
  await self.publish({ version: 2, prev: self.policy().sha256 })
  await ban()
  expect((await self.token(await self.evidence(other))).status).toBe(200)
  await self.restart()
  expect((await self.token(await self.evidence(other))).status).toBe(200)
  const challenge = { node: node.id, purpose: 'issue' }
  await expectRefusal(await self.request('POST', '/v1/challenge', challenge), 401, 'NODE_BANNED')
  expect(self.broker.policy.installed().version).toBe(2)
  expect(await allowedDecisions(self, other)).toBe(2)
})

describe('a node', () => {
  test('whose row nobody enrolled ends the start', async () => {
    const { jwk } = newNode()
    const message = await refusedAfter(
      `insert into node_identity select 'node-of-mine', '${JSON.stringify(jwk)}', class, 999,
        enrolled_at, expires_at, null, null, null from node_identity`,
      `insert into join_token select 'token-of-mine', used_at, 'node-of-mine', body_sha256
        from join_token`,
    )
    expect(message).toContain('expected an enrolment of node "node-of-mine" in log entry 999')
  })

  test.each([
    ['key', () => `jwk = '${JSON.stringify(newNode().jwk)}'`],
    ['class', () => `class = 'trusted'`],
    ['expiry', () => 'expires_at = expires_at + 86400'],
    ['time of enrolment', () => 'enrolled_at = enrolled_at + 1'],
    ['name', () => `id = 'node-of-mine'`],
    ['log entry', () => 'enrolled_entry = 0'],
  ])('with another %s ends the start', async (_, change) => {
    await refusedAfter(
      `update node_identity set ${change()}`,
      `update join_token set node_id =
      (select id from node_identity)`,
    )
  })

  test('whose row is gone, so that its join token serves again, ends the start', async () => {
    expect(await refusedAfter('delete from node_identity', 'delete from join_token')).toContain(
      `expected node "${node.id}" of log entry`,
    )
  })

  test('whose join token alone is gone ends the start', async () => {
    await refusedAfter('delete from join_token')
  })

  test('put in while the broker runs gets nothing', async () => {
    const mine = newNode()
    edit(
      `insert into node_identity select 'node-of-mine', '${JSON.stringify(mine.jwk)}', class, 0,
        enrolled_at, expires_at, null, null, null from node_identity`,
      `insert into join_token select 'token-of-mine', used_at, 'node-of-mine', body_sha256
        from join_token`,
    )
    const challenge = { node: 'node-of-mine', purpose: 'issue' }
    await expectRefusal(await self.request('POST', '/v1/challenge', challenge), 500, 'LOG_CORRUPT')
  })

  test('whose envelope is another entry’s ends the start', async () => {
    expect(
      await refusedAfter(
        `update body set bytes = (select bytes from body where id = 0) where id =
          (select enrolled_entry * 8 from node_identity)`,
      ),
    ).toContain('expected the envelope in its leaf')
  })

  test('whose enrolment no broker signed ends the start, even if the log adds up', async () => {
    const { jwk, thumbprint: keyThumbprint } = newNode()
    const { signing: stranger } = generateSigningKey()
    const id = 'node-of-mine'
    const token = 'token-of-mine'
    const times = { enrolledAt: START, expiresAt: START + 86_400 }
    const predicate: Enrolment = {
      schema: ENROLMENT_SCHEMA,
      installation: INSTALLATION,
      node: id,
      nodeClass: 'demo',
      nodeKey: jwk,
      keyThumbprint,
      tokenId: token,
      joinTokenSha256: sha256Hex(token),
      ...times,
    }
    const subject = [{ name: `node:${id}`, digest: { sha256: sha256Hex(id) } }]
    await self.broker.store.commitEnrolment({
      node: { id, jwk, nodeClass: 'demo', ...times },
      joinToken: { id: token, envelope: Buffer.from(token) },
      ...signEntry({ subject, predicateType: ENROLMENT_V1, predicate }, stranger),
    })
    expect(await refusedAfter()).toContain('expected a statement that a broker signed')
  })
})

describe('a ban', () => {
  beforeEach(ban)
  const lift = 'update node_identity set banned_entry = null, banned_at = null, ban_reason = null'
  const banEntry = `(select max(idx) from entry)`

  test('that was taken off the row ends the start', async () => {
    expect(await refusedAfter(lift)).toContain(`expected node "${node.id}" banned by log entry`)
  })

  test('that was also disguised as a decision ends the start', async () => {
    const disguise = `update entry set kind = 'decision' where idx = ${banEntry}`
    expect(await refusedAfter(lift, disguise)).toContain('expected the statement of one "decision"')
  })

  test('whose envelope was also taken away ends the start', async () => {
    expect(await refusedAfter(lift, `delete from body where id = ${banEntry} * 8`)).toContain(
      'expected an envelope, saw none',
    )
  })

  test('whose envelope was also exchanged ends the start', async () => {
    await refusedAfter(
      lift,
      `update entry set kind = 'enrolment' where idx = ${banEntry}`,
      `update body set bytes = (select bytes from body where id =
        (select enrolled_entry * 8 from node_identity)) where id = ${banEntry} * 8`,
    )
  })

  test.each([
    ['reason', `ban_reason = 'a mistake'`],
    ['time', 'banned_at = 0'],
    ['log entry', 'banned_entry = 0'],
  ])('with another %s ends the start', async (_, change) => {
    await refusedAfter(`update node_identity set ${change}`)
  })

  test('that nobody logged ends the start', async () => {
    await self.enrol()
    expect(
      await refusedAfter(
        `update node_identity set banned_entry = 0, banned_at = 0, ban_reason = 'none'
          where banned_entry is null`,
      ),
    ).toContain('expected no ban')
  })

  test('taken off the row while the broker runs stays known to it', async () => {
    edit(lift)
    await self.broker.nodes.reload(node.id)
    const challenge = { node: node.id, purpose: 'issue' }
    await expectRefusal(await self.request('POST', '/v1/challenge', challenge), 401, 'NODE_BANNED')
  })
})

describe('a policy', () => {
  beforeEach(async () => {
    const prev = self.policy().sha256
    expect((await self.publish({ version: 2, prev, state: 'revoked' })).status).toBe(200)
  })

  test('that was deleted does not bring back the one before', async () => {
    expect(await refusedAfter('delete from policy where version = 2')).toBe(
      'expected policy 2 installed, the newest in the log, saw policy 1',
    )
  })

  test('that was replaced by the text of the one before ends the start', async () => {
    await refusedAfter(
      `update policy set (sha256, envelope_sha256, entry_idx) = (select sha256, envelope_sha256, 999
        from policy where version = 1) where version = 2`,
    )
  })

  test('that was renumbered ends the start', async () => {
    await refusedAfter(
      'delete from policy where version = 2',
      'update policy set version = 2 where version = 1',
    )
  })

  test('whose entry was disguised ends the start', async () => {
    await refusedAfter(
      'delete from policy where version = 2',
      `update entry set kind = 'attestation', ref = '' where idx = (select max(idx) from entry)`,
    )
  })

  test('all of them deleted ends the start', async () => {
    await refusedAfter('delete from policy')
  })
})
