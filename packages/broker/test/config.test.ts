import {
  chmodSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { parseConfig } from '../src/config.ts'
import { BROKER_ERROR_CODES } from '../src/error.ts'
import { PROBLEM_TABLE } from '../src/problems.ts'
import { loadOrCreateSecret, openStateDir, readSecretFile } from '../src/secret-file.ts'

const GOOD = {
  installation: 'demo',
  issuer: 'https://broker.demo.test',
  stateDir: 'state',
  listen: { host: '127.0.0.1', port: 8443, tls: null },
  adminSocket: 'run/admin.sock',
  store: { sqlite: 'bagcheck.sqlite' },
  trustRoot: { pin: 'a'.repeat(64), chain: ['root.json'] },
  logKey: 'log.key',
  decisionKey: 'broker.pem',
}
/** Keys that have defaults. */
const OPTIONAL = {
  spiffe: { authorityTtlSeconds: 86_400, federatesWith: [] },
}
const parse = (change: object) =>
  parseConfig(JSON.stringify({ ...GOOD, ...change }), '/etc/bagcheck')
const listen = (host: string, tls: unknown = null) => ({ listen: { host, port: 1, tls } })

describe('the configuration', () => {
  test('resolves paths from its own place, and the database from the state directory', () => {
    expect(parse({})).toMatchObject({
      stateDir: '/etc/bagcheck/state',
      store: { sqlite: { file: '/etc/bagcheck/state/bagcheck.sqlite' } },
      trustRoot: { chain: ['/etc/bagcheck/root.json'] },
      logKey: '/etc/bagcheck/log.key',
    })
  })

  test.each(['0.0.0.0', '::', '10.0.0.1', 'broker.demo.test', 'localhost', '127.evil.test'])(
    'demands TLS to listen on %s',
    (host) => {
      expect(() => parse(listen(host))).toThrow(
        expect.objectContaining({ code: 'CONFIG_TLS_REQUIRED' }),
      )
      expect(parse(listen(host, { cert: 'c.pem', key: 'k.pem' }))).toBeDefined()
    },
  )

  test.each(['127.0.0.1', '127.1.2.3', '::1'])('takes plain HTTP on %s', (host) => {
    expect(parse(listen(host))).toBeDefined()
  })

  test('takes plain HTTP on a unix socket', () => {
    expect(parse({ listen: { socket: 's' } })).toMatchObject({
      listen: { socket: '/etc/bagcheck/s' },
    })
  })

  test.each([
    ['an unknown key', { extra: 1 }],
    ['a missing key', { logKey: undefined }],
    ['a pin that is no digest', { trustRoot: { pin: 'x', chain: ['r'] } }],
    ['an empty chain', { trustRoot: { pin: 'a'.repeat(64), chain: [] } }],
    ['a port beyond 65535', { listen: { host: '127.0.0.1', port: 65_536, tls: null } }],
    ['two stores', { store: { sqlite: 'a', postgres: 'b' } }],
    ['an issuer with a query', { issuer: 'https://a.test/?x' }],
    ['an issuer with a slash at its end', { issuer: 'https://a.test/' }],
    ['an issuer of another scheme', { issuer: 'ftp://a.test' }],
    ['an authority of no life', { spiffe: { authorityTtlSeconds: 0 } }],
    [
      'a trust domain that is none',
      { spiffe: { federatesWith: [{ trustDomain: 'A/b', bundle: 'b' }] } },
    ],
    ['tls left out', { listen: { host: '127.0.0.1', port: 1 } }],
  ])('with %s is refused', (_, change) => {
    expect(() => parse(change)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }))
  })

  test('that is no JSON is refused without quoting it', () => {
    const text = '{"store":{"postgres":"postgres://u:secret@h/d"'
    expect(() => parseConfig(text, '/')).toThrow(expect.objectContaining({ code: 'CONFIG_FILE' }))
    expect(() => parseConfig(text, '/')).not.toThrow(/secret/)
  })
})

describe('docs/operations.md', () => {
  const page = readFileSync(new URL('../../../docs/operations.md', import.meta.url), 'utf8')
  const [, section = ''] = page.split("## The broker's configuration\n")
  const [text = ''] = section.split(/^## /m)

  test('shows a configuration that is taken', () => {
    const [, example = ''] = /```json\n([^`]+)```/.exec(text) ?? []
    const config = parseConfig(example.replace('<64 hex digits>', 'a'.repeat(64)), '/etc/bagcheck')
    expect(Object.keys(config).toSorted()).toEqual(Object.keys({ ...GOOD, ...OPTIONAL }).toSorted())
  })

  test('has a row for every key, each of which is required or has a default', () => {
    const rows = [...text.matchAll(/^\| `(\w+)(\.\w+)?` \|/gm)].map(([, key = '']) => key)
    expect([...new Set(rows)].toSorted()).toEqual(Object.keys({ ...GOOD, ...OPTIONAL }).toSorted())
    expect(parse({})).toMatchObject(OPTIONAL)
    for (const key of Object.keys(GOOD))
      expect(() => parse({ [key]: undefined }), key).toThrow(
        expect.objectContaining({ code: 'CONFIG_INVALID' }),
      )
  })
})

describe('secret files', () => {
  let dir: string
  let file: string
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'bagcheck-secret-'))
    file = join(dir, 'key')
  })
  afterEach(() => rmSync(dir, { recursive: true }))

  test('are made once, 0600, and kept', () => {
    expect(loadOrCreateSecret(file, () => 'one')).toBe('one')
    expect(loadOrCreateSecret(file, () => 'two')).toBe('one')
    expect(statSync(file).mode & 0o7777).toBe(0o600)
  })

  test.each([0o640, 0o604, 0o644, 0o620, 0o700])('of mode %o are refused', (mode) => {
    writeFileSync(file, 'x')
    chmodSync(file, mode)
    expect(() => readSecretFile(file)).toThrow(expect.objectContaining({ code: 'KEY_FILE_MODE' }))
  })

  test('that are links, directories, huge or missing are refused', () => {
    const invalid = expect.objectContaining({ code: 'KEY_FILE_INVALID' })
    expect(() => readSecretFile(file)).toThrow(invalid)
    writeFileSync(file, 'x'.repeat(65_537), { mode: 0o600 })
    expect(() => readSecretFile(file)).toThrow(invalid)
    symlinkSync(file, join(dir, 'link'))
    expect(() => readSecretFile(join(dir, 'link'))).toThrow(invalid)
    expect(() => readSecretFile(dir)).toThrow(invalid)
  })

  test('lie in a state directory that only its owner can write to', () => {
    const state = join(dir, 'state')
    openStateDir(state)
    expect(statSync(state).mode & 0o7777).toBe(0o700)
    chmodSync(state, 0o770)
    expect(() => openStateDir(state)).toThrow(expect.objectContaining({ code: 'STATE_DIR' }))
  })
})

test('every code has its row in the one table, and no row is without a code', () => {
  expect(Object.keys(PROBLEM_TABLE).toSorted()).toEqual([...BROKER_ERROR_CODES].toSorted())
  expect(new Set(BROKER_ERROR_CODES).size).toBe(BROKER_ERROR_CODES.length)
})
