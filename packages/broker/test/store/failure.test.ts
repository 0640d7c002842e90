import { LogError } from '@bagcheck/log'
import { describe, expect, test } from 'vitest'
import { BROKER_ERROR_CODES, BrokerError } from '../../src/error.ts'
import { storeError } from '../../src/store/failure.ts'

const sqlite = (errcode: number) => Object.assign(new Error('sqlite'), { errcode })
const postgres = (code: string) => Object.assign(new Error('postgres'), { code })

describe('a failure of the database', () => {
  test.each([
    ['SQLITE_BUSY', sqlite(5), 'STORE_TIMEOUT'],
    ['SQLITE_BUSY_SNAPSHOT', sqlite(517), 'STORE_TIMEOUT'],
    ['SQLITE_FULL', sqlite(13), 'STORE_FULL'],
    ['SQLITE_IOERR_SHMSIZE', sqlite(4874), 'STORE_FULL'],
    ['SQLITE_IOERR_FSYNC', sqlite(1034), 'STORE_UNAVAILABLE'],
    ['SQLITE_CORRUPT_INDEX', sqlite(779), 'LOG_CORRUPT'],
    ['SQLITE_CONSTRAINT_UNIQUE', sqlite(2067), 'STORE_CONFLICT'],
    ['disk_full', postgres('53100'), 'STORE_FULL'],
    ['too_many_connections', postgres('53300'), 'STORE_UNAVAILABLE'],
    ['statement timeout', postgres('57014'), 'STORE_TIMEOUT'],
    ['lock timeout', postgres('55P03'), 'STORE_TIMEOUT'],
    ['unique_violation', postgres('23505'), 'STORE_CONFLICT'],
    ['admin_shutdown', postgres('57P01'), 'STORE_UNAVAILABLE'],
    ['data_corrupted', postgres('XX001'), 'LOG_CORRUPT'],
    ['a refused connection', postgres('ECONNREFUSED'), 'STORE_UNAVAILABLE'],
    ['no answer to a query', new Error('Query read timeout'), 'STORE_TIMEOUT'],
    ['a malformed hash', new LogError('LOG_HASH', 'expected 32 bytes'), 'LOG_CORRUPT'],
    ['a mistake of ours', new TypeError('undefined is not a function'), 'STORE_UNAVAILABLE'],
    ['what is no error', 'text', 'STORE_UNAVAILABLE'],
  ])('%s', (_, cause, code) => {
    const error = storeError(cause)
    expect(error).toMatchObject({ code, cause })
    expect(BROKER_ERROR_CODES).toContain(code)
  })

  test('that has a code of ours keeps it', () => {
    const error = new BrokerError('NODE_BANNED', 'banned')
    expect(storeError(error)).toBe(error)
  })
})
