// A file that is not there is one thing; a file that is there and cannot be read is another. Who takes
// the second for the first writes over it, or goes on without it.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { MAX_SMALL_BYTES, ifThere, readSmallText } from '../src/files.ts'
import { findAccount } from '../src/unit/account.ts'
import { run } from './transcript.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'bagcheck-missing-'))
})
afterEach(() => rmSync(folder, { recursive: true }))

test('only a file that is not there is taken for none', async () => {
  expect(await ifThere(readSmallText(join(folder, 'none')))).toBeUndefined()
  await expect(ifThere(readSmallText(folder))).rejects.toMatchObject({ code: 'FILE_UNREADABLE' })
  const broken = Promise.reject(Object.assign(new Error('bad disk'), { code: 'EIO' }))
  await expect(ifThere(broken)).rejects.toMatchObject({ code: 'FILE_UNREADABLE' })
})

describe('"policy sign"', () => {
  const source = join(import.meta.dirname, '../testdata/policy/policy.yaml')
  let policy: string
  const sign = (key: string) =>
    run(['policy', 'sign', policy, '--key', join(folder, key), '--previous', source])

  beforeEach(async () => {
    policy = join(folder, 'policy.json')
    expect(await run(['policy', 'compile', source, '--output', policy])).toMatchObject({ code: 0 })
    for (const key of ['a.pem', 'b.pem']) await run(['keygen', join(folder, key)])
  })

  test('adds to the signatures that are there', async () => {
    expect(await sign('a.pem')).toMatchObject({ code: 0, stderr: '' })
    expect(await sign('b.pem')).toMatchObject({ code: 0 })
    const envelope = JSON.parse(readFileSync(join(folder, 'policy.dsse.json'), 'utf8'))
    expect(envelope.signatures).toHaveLength(2)
  })

  test('leaves an envelope that it cannot read as it is', async () => {
    const file = join(folder, 'policy.dsse.json')
    const text = ' '.repeat(MAX_SMALL_BYTES + 1)
    writeFileSync(file, text)
    const { code, stderr } = await sign('a.pem')
    expect({ code, stderr }).toMatchObject({
      code: 3,
      stderr: expect.stringMatching(/FILE_UNREADABLE/),
    })
    expect(readFileSync(file, 'utf8')).toBe(text)
  })
})

test('"attest submit" tells a directory that is empty or missing from one that cannot be read', async () => {
  const submit = (at: string) => run(['attest', 'submit', at, '--admin', join(folder, 'no.sock')])
  expect((await submit(join(folder, 'none'))).stderr).toMatch(/NOT_FOUND/)
  writeFileSync(join(folder, 'file'), '')
  expect((await submit(join(folder, 'file'))).stderr).toMatch(/FILE_UNREADABLE/)
})

describe('an account', () => {
  test('is found by name or number; a number without an entry is its own group', async () => {
    const users = join(folder, 'passwd')
    writeFileSync(users, 'root:x:0:0::/:\norders:x:990:100::/:\n')
    const tables = { users, groups: join(folder, 'none') }
    expect(await findAccount('orders', undefined, tables)).toEqual({ uid: 990, gid: 100 })
    expect(await findAccount('990', undefined, tables)).toEqual({ uid: 990, gid: 100 })
    expect(await findAccount('991', undefined, tables)).toEqual({ uid: 991, gid: 991 })
  })

  test('is not guessed where the table of users cannot be read', async () => {
    const users = join(folder, 'passwd')
    mkdirSync(users)
    const tables = { users, groups: users }
    const refused = expect.objectContaining({ code: 'FILE_UNREADABLE' })
    await expect(findAccount('990', undefined, tables)).rejects.toEqual(refused)
    await expect(findAccount('990', 'orders', tables)).rejects.toEqual(refused)
  })
})
