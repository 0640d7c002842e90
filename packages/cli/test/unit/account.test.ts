// Who a unit runs as, from tables like /etc/passwd and /etc/group.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { findAccount } from '../../src/unit/account.ts'

let folder: string
let tables: { users: string; groups: string }
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'bagcheck-account-'))
  tables = { users: join(folder, 'passwd'), groups: join(folder, 'group') }
  const users = ['orders:x:61050:61060::/:/bin/false', 'empty:x:::::', 'none:x:4294967295:1::/:']
  writeFileSync(tables.users, `${users.join('\n')}\n`)
  writeFileSync(tables.groups, 'shop:x:61070:\nempty:x::\n')
})
afterAll(() => rmSync(folder, { recursive: true }))

test.each([
  ['orders', undefined, { uid: 61050, gid: 61060 }],
  ['61050', undefined, { uid: 61050, gid: 61060 }],
  ['61051', undefined, { uid: 61051, gid: 61051 }],
  ['orders', 'shop', { uid: 61050, gid: 61070 }],
  ['orders', '7', { uid: 61050, gid: 7 }],
  ['4294967294', undefined, { uid: 4294967294, gid: 4294967294 }],
])('user %j, group %j', async (user, group, account) => {
  expect(await findAccount(user, group, tables)).toEqual(account)
})

test.each([
  ['nobody knows', undefined],
  ['orders', 'nobody knows'],
  // The kernel takes -1 for "as it is", and setpriv what is left of a number after 32 bits: both are root.
  ['4294967295', undefined],
  ['4294967296', undefined],
  ['9999999999', undefined],
  ['orders', '4294967295'],
  ['none', undefined],
  ['empty', undefined],
  ['orders', 'empty'],
  ['-1', undefined],
  ['0061050', undefined],
  ['', undefined],
])('user %j, group %j is refused, and never root', async (user, group) => {
  await expect(findAccount(user, group, tables)).rejects.toMatchObject({ code: 'USAGE' })
})
