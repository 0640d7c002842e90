import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { parseConfig } from '../src/index.ts'
import { AGENT_VERSION } from '../src/version.ts'

const CONFIG = {
  installation: 'demo',
  broker: 'http://127.0.0.1:8443',
  trustRootPin: 'a'.repeat(64),
  stateDir: 'state',
}
const parse = (changes: Record<string, unknown> = {}) =>
  parseConfig(JSON.stringify({ ...CONFIG, ...changes }), '/etc/bagcheck')

describe('the configuration', () => {
  test('resolves paths from its own directory and fills in defaults', () => {
    expect(parse({ joinToken: '/abs/join.json' })).toEqual({
      installation: 'demo',
      broker: 'http://127.0.0.1:8443',
      issuer: 'http://127.0.0.1:8443',
      brokerCa: null,
      trustRootPin: 'a'.repeat(64),
      stateDir: '/etc/bagcheck/state',
      socket: '/run/bagcheck/agent.sock',
      spiffeSocket: '/run/bagcheck/spiffe.sock',
      unitsDir: '/run/bagcheck-units',
      ociStateDirs: [
        '/run/runc',
        '/run/crun',
        '/run/containerd/runc/*',
        '/run/docker/runtime-runc/*',
      ],
      user: 'bagcheck-agent',
      measurer: { socket: null, user: 'root', stateDir: '/etc/bagcheck/state-measurer' },
      joinToken: '/abs/join.json',
      nix: {
        daemonSocket: '/nix/var/nix/daemon-socket/socket',
        database: '/nix/var/nix/db/db.sqlite',
      },
      storeCheckIntervalSeconds: 1,
      actions: [],
      actionsSocket: '/run/bagcheck-actions/actions.sock',
      observeIntervalSeconds: 300,
      tokenFiles: [],
    })
  })

  test.each([
    'http://broker.example',
    'http://10.0.0.1:8443',
    'http://127.0.0.1.example',
    'http://localhost.example:80',
  ])('%s would carry tokens in the clear', (broker) => {
    expect(() => parse({ broker })).toThrow(
      expect.objectContaining({ code: 'CONFIG_TLS_REQUIRED' }),
    )
  })

  test.each(['https://broker.example', 'http://localhost:1', 'http://[::1]:8443'])(
    '%s is taken',
    (broker) => {
      expect(parse({ broker }).broker).toBe(broker)
    },
  )

  test('a broker on a unix socket needs its issuer said', () => {
    expect(() => parse({ broker: 'unix:/run/b.sock' })).toThrow(
      expect.objectContaining({ code: 'CONFIG_INVALID' }),
    )
    const { issuer } = parse({ broker: 'unix:/run/b.sock', issuer: 'https://b.example' })
    expect(issuer).toBe('https://b.example')
  })

  test.each([
    [{ trustRootPin: 'A'.repeat(64) }],
    [{ trustRootPin: undefined }],
    [{ installation: '' }],
    [{ broker: 'ftp://x' }],
    [{ stateDir: 7 }],
    [{ nix: { store: '/x' } }],
    [{ storeCheckIntervalSeconds: -1 }],
    [{ acceptAll: true }],
  ])('%j is refused', (changes) => {
    expect(() => parse(changes)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }))
  })
})

describe('docs/operations.md', () => {
  const page = readFileSync(new URL('../../../docs/operations.md', import.meta.url), 'utf8')
  const [, section = ''] = page.split("## The agent's configuration\n")
  const [text = ''] = section.split(/^## /m)
  const rows = [...text.matchAll(/^\| `([\w.]+)` \| (.+?) \|/gm)].map(
    ([, key = '', said = '']) => ({
      key,
      said,
    }),
  )
  const { installation, broker, trustRootPin } = CONFIG
  const required = { installation, broker, trustRootPin }
  const config = parseConfig(JSON.stringify(required), '/')
  const { nix, measurer, ...rest } = config
  const flat: Record<string, unknown> = {
    ...rest,
    ...Object.fromEntries(Object.entries(nix).map(([key, value]) => [`nix.${key}`, value])),
    ...Object.fromEntries(
      Object.entries(measurer).map(([key, value]) => [`measurer.${key}`, value]),
    ),
  }

  test('shows a configuration that works with the units of deploy/systemd', () => {
    const [, example = ''] = /```json\n([^`]+)```/.exec(text) ?? []
    const shown = parseConfig(example.replace('<64 hex digits>', 'a'.repeat(64)), '/')
    const unit = readFileSync(
      new URL('../../../deploy/systemd/bagcheck-measurer.service', import.meta.url),
      'utf8',
    )
    const [, directory] = /^RuntimeDirectory=(.+)$/m.exec(unit) ?? []
    expect(shown.measurer.socket).toBe(`/run/${directory}/measurer.sock`)
  })

  test('has a row for every key', () => {
    expect(rows.map(({ key }) => key).toSorted()).toEqual(Object.keys(flat).toSorted())
  })

  test.each(rows)('says the default of $key', ({ key, said }) => {
    const byWord: Record<string, unknown> = { none: null, "system's": null, '`broker`': broker }
    if (said === '–') expect(required).toHaveProperty(key)
    else if (said === 'empty') expect(flat[key]).toEqual([])
    else if (said in byWord) expect(flat[key]).toBe(byWord[said])
    else expect(`${flat[key] as string | number}`).toBe(said.replaceAll('`', ''))
  })
})

test('evidence tells the version of the package', () => {
  const text = readFileSync(new URL('../package.json', import.meta.url), 'utf8')
  expect(AGENT_VERSION).toBe((JSON.parse(text) as { version: string }).version)
})

test('token files are whole and unambiguous, or refused', () => {
  const file = { unit: 'orders', audience: 'https://a', path: 'tokens/api' }
  expect(parse({ tokenFiles: [file] }).tokenFiles).toEqual([
    {
      ...{ unit: 'orders', audience: 'https://a', path: '/etc/bagcheck/tokens/api' },
      ...{ owner: null, mode: 0o440, profile: null, ttlSeconds: null },
    },
  ])
  for (const change of [
    { unit: '../orders' },
    { unit: 'a b.service' },
    { unit: '-x.service' },
    { mode: '0444' },
    { mode: '0777' },
    { mode: 288 },
    { owner: { uid: 0 } },
    { owner: { uid: -1, gid: 0 } },
    { path: 'tokens/' },
    { audience: '' },
    { ttlSeconds: 0 },
    { key: 'unknown' },
  ])
    expect(() => parse({ tokenFiles: [{ ...file, ...change }] })).toThrow()
  expect(() => parse({ tokenFiles: [file, file] })).toThrow('twice')
  expect(() => parse({ tokenFiles: {} })).toThrow('tokenFiles')
})
