// Users and groups of this host, from /etc/passwd and /etc/group.
import { readFile } from 'node:fs/promises'
import { CliError } from '../error.ts'
import { ifThere } from '../files.ts'

/** Who a unit runs as. */
export interface Account {
  readonly uid: number
  readonly gid: number
}

const SYSTEM_TABLES = { users: '/etc/passwd', groups: '/etc/group' }
const NUMBER = /^(0|[1-9][0-9]{0,9})$/
/** The kernel takes -1, which is the next number, for "as it is": that would be root. */
const MAX_ID = 0xffff_fffe

/**
 * A user by name or number, with the group of that user, or of the same number where the user has no
 * entry, unless `group` is given.
 * @throws {CliError} USAGE – no such user or group, or its number is none; FILE_UNREADABLE – a table is there and cannot be read
 */
export async function findAccount(
  user: string,
  group: string | undefined,
  tables: { readonly users: string; readonly groups: string } = SYSTEM_TABLES,
): Promise<Account> {
  const users = await table(tables.users)
  const entry = users.find((fields) => (NUMBER.test(user) ? fields[2] : fields[0]) === user)
  if (entry === undefined && !NUMBER.test(user))
    throw new CliError('USAGE', `no user ${JSON.stringify(user)} on this host`)
  const uid = parseId(entry?.[2] ?? user, `user ${JSON.stringify(user)}`)
  if (group === undefined)
    return { uid, gid: parseId(entry?.[3] ?? `${uid}`, `group of user ${JSON.stringify(user)}`) }
  if (NUMBER.test(group)) return { uid, gid: parseId(group, 'group') }
  const found = (await table(tables.groups)).find((fields) => fields[0] === group)
  if (found === undefined)
    throw new CliError('USAGE', `no group ${JSON.stringify(group)} on this host`)
  return { uid, gid: parseId(found[2], `group ${JSON.stringify(group)}`) }
}

/** An id that nothing between here and the kernel takes for another one. */
function parseId(text: string | undefined, whose: string): number {
  if (text !== undefined && NUMBER.test(text) && Number(text) <= MAX_ID) return Number(text)
  throw new CliError(
    'USAGE',
    `${whose}: expected a number of at most ${MAX_ID}, saw ${JSON.stringify(text)}`,
  )
}

async function table(file: string): Promise<string[][]> {
  const text = (await ifThere(readFile(file, 'utf8'))) ?? ''
  return text.split('\n').map((line) => line.split(':'))
}
