// nix/modules/agent.nix against what it must not drift from: the units of deploy/systemd, the directory of
// deploy/tmpfiles.d, and the agent's own parser. Evaluated by real Nix with the small evaluator of
// test/nixos, and with nixpkgs' own `lib` where BAGCHECK_NIXPKGS_LIB names its directory.
import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { nixAvailable, nixString, runNix } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { parseConfig } from '../packages/agent/src/config.ts'

const REPOSITORY = resolve(import.meta.dirname, '..')
const PIN = '5'.repeat(64)
const given = process.env['BAGCHECK_NIXPKGS_LIB']
const evaluators: [name: string, lib: string][] = [
  ['the evaluator of test/nixos', join(REPOSITORY, 'test/nixos/evaluate.nix')],
]
if (given !== undefined) evaluators.push([`the lib of nixpkgs in ${given}`, given])
console.log(`the NixOS module is evaluated with ${evaluators.map(([name]) => name).join(' and ')}`)
if (given === undefined) console.log("BAGCHECK_NIXPKGS_LIB is not set: not with nixpkgs' lib")

type Value = string | number | boolean
type Keys = Readonly<Record<string, Value | readonly Value[]>>
interface Service {
  readonly description: string
  readonly wants?: readonly string[]
  readonly after?: readonly string[]
  readonly before?: readonly string[]
  readonly requires?: readonly string[]
  readonly wantedBy?: readonly string[]
  readonly path?: readonly string[]
  readonly restartTriggers: readonly string[]
  readonly serviceConfig: Keys
}
interface Host {
  readonly refused: readonly string[]
  readonly package: string
  readonly systemd: string
  readonly etc: Readonly<Record<string, { readonly text: string }>>
  readonly services: Readonly<Record<string, Service>>
  readonly sockets: Readonly<
    Record<string, { description: string; wantedBy: string[]; socketConfig: Keys }>
  >
  readonly tmpfiles: readonly string[]
  readonly users: unknown
  readonly groups: unknown
}

/** Sections of a unit file; a key that is there twice has both values. */
function parseUnit(text: string): Record<string, Record<string, string[]>> {
  const sections: Record<string, Record<string, string[]>> = {}
  let section: Record<string, string[]> = {}
  for (const line of text.split('\n')) {
    const [, name] = /^\[(\w+)\]$/.exec(line) ?? []
    const [, key, value = ''] = /^(\w+)=(.*)$/.exec(line) ?? []
    if (name !== undefined) section = sections[name] ??= {}
    else if (key !== undefined) (section[key] ??= []).push(value)
    else if (!/^(#.*)?$/.test(line)) throw new Error(`not a line of a unit: ${line}`)
  }
  return sections
}

/** As NixOS writes them: a line for each member of a list. */
function asLines(keys: Keys): Record<string, string[]> {
  const text = (value: Value): string =>
    typeof value === 'boolean' ? (value ? 'yes' : 'no') : String(value)
  return Object.fromEntries(
    Object.entries(keys).map(([key, value]) => [
      key,
      [value].flat().map((one) => text(one as Value)),
    ]),
  )
}

/** Lists of units on one line, in the sections that they belong to. */
function asUnit(service: Service): Record<string, Record<string, string[]>> {
  const { description, wants = [], after = [], before = [], requires = [] } = service
  const { wantedBy, serviceConfig } = service
  const lists = Object.entries({ Wants: wants, After: after, Before: before, Requires: requires })
  const said = lists.filter(([, units]) => units.length > 0)
  return {
    Unit: {
      Description: [description],
      ...Object.fromEntries(said.map(([key, units]) => [key, [units.join(' ')]])),
    },
    Service: asLines(serviceConfig),
    ...(wantedBy === undefined ? {} : { Install: { WantedBy: [wantedBy.join(' ')] } }),
  }
}

const REQUIRED = `installation = "demo"; broker = "https://broker.test"; trustRootPin = "${PIN}";`

describe.runIf(nixAvailable()).each(evaluators)('with %s', (_name, lib) => {
  const evaluate = (agent: string): Host => {
    const system = `{ services.bagcheck.agent = ${agent}; }`
    const host = join(REPOSITORY, 'test/nixos/host.nix')
    const expression = `import ${nixString(host)} { lib = import ${nixString(lib)}; system = ${system}; }`
    return JSON.parse(
      runNix('nix-instantiate', ['--eval', '--strict', '--json', '--expr', expression]),
    ) as Host
  }
  const enabled = (settings = '', more = ''): Host =>
    evaluate(`{ enable = true; ${more} settings = { ${REQUIRED} ${settings} }; }`)
  const parsed = (host: Host): ReturnType<typeof parseConfig> =>
    parseConfig(host.etc['bagcheck/agent.json']?.text ?? '', '/etc/bagcheck')
  const RESTART = 'actions = [ { id = "again"; do = "restart"; on.units = [ "a.service" ]; } ];'

  test('what is not enabled changes nothing', () => {
    const { services, sockets, etc, users, groups, refused, tmpfiles } = evaluate('{ }')
    expect({ services, sockets, etc, users, groups, refused, tmpfiles }).toEqual({
      ...{ services: {}, sockets: {}, etc: {}, users: {}, groups: {}, refused: [], tmpfiles: [] },
    })
  })

  const shipped = (name: string, host: Host): ReturnType<typeof parseUnit> => {
    const file = readFileSync(join(REPOSITORY, 'deploy/systemd', name), 'utf8')
    return parseUnit(file.replaceAll('/opt/bagcheck/', `${host.package}/bin/`))
  }

  test.each(['bagcheck-agent', 'bagcheck-measurer', 'bagcheck-actions'])(
    '%s is the unit of deploy/systemd',
    (name) => {
      const host = enabled(RESTART)
      const unit = shipped(`${name}.service`, host)
      expect(asUnit(host.services[name] as Service)).toEqual(unit)
      expect(Object.keys(unit['Service'] ?? {}).length).toBeGreaterThan(25)
    },
  )

  test('nothing else runs unless an action needs root; then on the socket of deploy/systemd', () => {
    expect(Object.keys(enabled().services)).toEqual(['bagcheck-agent', 'bagcheck-measurer'])
    expect(enabled().sockets).toEqual({})
    const host = enabled(RESTART)
    const { description, wantedBy, socketConfig = {} } = host.sockets['bagcheck-actions'] ?? {}
    expect({
      Unit: { Description: [description] },
      Socket: asLines(socketConfig),
      Install: { WantedBy: wantedBy },
    }).toEqual(shipped('bagcheck-actions.socket', host))
  })

  test('token files have the directory of deploy/tmpfiles.d', () => {
    const file = readFileSync(join(REPOSITORY, 'deploy/tmpfiles.d/bagcheck.conf'), 'utf8')
    expect(enabled().tmpfiles).toEqual(file.split('\n').filter((line) => /^[^#]/.test(line)))
    expect(enabled('user = "front";').tmpfiles).toEqual(['d /run/bagcheck-tokens 0711 front root'])
  })

  test('what runs busctl or systemctl finds it', () => {
    const { services, systemd } = enabled(RESTART)
    expect(services['bagcheck-measurer']?.path).toEqual([systemd])
    expect(services['bagcheck-actions']?.path).toEqual([systemd])
  })

  test('the users are system users with groups of their own, under the names that the file says', () => {
    const host = enabled('user = "front"; measurer.user = "looker";')
    const user = (group: string): unknown => ({ isSystemUser: true, group })
    expect(host.users).toEqual({ front: user('front'), looker: user('looker') })
    expect(host.groups).toEqual({ front: {}, looker: {} })
    expect(parsed(host)).toMatchObject({ user: 'front', measurer: { user: 'looker' } })
    expect(host.services['bagcheck-agent']?.serviceConfig['User']).toBe('front')
    expect(host.services['bagcheck-measurer']?.serviceConfig['User']).toBe('looker')
  })

  test('the defaults of the options are those of the agent', () => {
    const measurer = { socket: '/run/bagcheck-measurer/measurer.sock', user: 'bagcheck-measurer' }
    const least = {
      installation: 'demo',
      broker: 'https://broker.test',
      trustRootPin: PIN,
      measurer,
    }
    expect(parsed(enabled())).toEqual(parseConfig(JSON.stringify(least), '/etc/bagcheck'))
    const action = { id: 'again', do: 'restart', on: { units: ['a.service'] } }
    const same = parseConfig(JSON.stringify({ ...least, actions: [action] }), '/etc/bagcheck')
    expect(parsed(enabled(RESTART))).toEqual(same)
  })

  test('every setting reaches the agent', () => {
    const host = enabled(
      `issuer = "https://issuer.test"; brokerCa = "/etc/ca.pem"; spiffeSocket = null;
       unitsDir = "/run/u"; nix.database = "/n/db"; nix.daemonSocket = "/n/socket";
       storeCheckIntervalSeconds = 0.5; observeIntervalSeconds = 0;
       actions = [ { id = "page"; do = "webhook"; url = "https://hooks.test/x"; ca = "/etc/hooks.pem";
         afterSeconds = 3; minIntervalSeconds = 20; on = { units = [ "orders" ]; codes = [ "TRACED" ]; }; }
         { id = "back"; do = "rollback"; profile = "/nix/var/nix/profiles/system"; hostClass = "web";
           on.units = [ "a.service" "b.service" ]; } ];
       tokenFiles = [ { unit = "a.service"; audience = "https://a.test"; path = "/run/bagcheck/t/a";
         owner = { uid = 7; gid = 8; }; mode = "0400"; profile = "p"; ttlSeconds = 60; } ];`,
      'joinTokenFile = "/var/lib/secrets/join.json";',
    )
    expect(host.refused).toEqual([])
    expect(parsed(host)).toMatchObject({
      ...{ issuer: 'https://issuer.test', brokerCa: '/etc/ca.pem', spiffeSocket: null },
      ...{ unitsDir: '/run/u', nix: { database: '/n/db', daemonSocket: '/n/socket' } },
      ...{ storeCheckIntervalSeconds: 0.5, observeIntervalSeconds: 0 },
      joinToken: '/var/lib/secrets/join.json',
      actions: [
        {
          ...{ id: 'page', do: 'webhook', url: 'https://hooks.test/x', ca: '/etc/hooks.pem' },
          ...{ afterSeconds: 3, minIntervalSeconds: 20, units: ['orders'], codes: ['TRACED'] },
        },
        {
          ...{ id: 'back', do: 'rollback', profile: '/nix/var/nix/profiles/system' },
          ...{ hostClass: 'web', minIntervalSeconds: 3600, units: ['a.service', 'b.service'] },
        },
      ],
      tokenFiles: [
        {
          ...{ unit: 'a.service', audience: 'https://a.test', path: '/run/bagcheck/t/a' },
          ...{ owner: { uid: 7, gid: 8 }, mode: 0o400, profile: 'p', ttlSeconds: 60 },
        },
      ],
    })
  })

  test('the example of docs/operations.md is accepted, here and by the agent', () => {
    const operations = readFileSync(join(REPOSITORY, 'docs/operations.md'), 'utf8')
    const [, example = ''] =
      /```nix\nservices\.bagcheck\.agent = (.*?);\n```/s.exec(operations) ?? []
    const host = evaluate(example.replace('<64 hex digits>', PIN))
    expect(host.refused).toEqual([])
    expect(parsed(host)).toMatchObject({
      joinToken: '/var/lib/secrets/bagcheck-join.json',
      actions: [{ id: 'restart-orders' }],
      tokenFiles: [{ path: '/run/bagcheck-tokens/reports/api.token' }],
    })
  })

  test('what the options do not know yet reaches the file, and the agent refuses it', () => {
    const host = enabled('later = { x = [ 1 null "a" ]; };')
    const text = host.etc['bagcheck/agent.json']?.text ?? ''
    expect(JSON.parse(text)).toMatchObject({ later: { x: [1, null, 'a'] } })
    expect(() => parsed(host)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }))
  })

  test('another configuration restarts the units', () => {
    const trigger = (host: Host): unknown =>
      Object.values(host.services).map(({ restartTriggers }) => restartTriggers)
    expect(trigger(enabled())).toEqual(trigger(enabled()))
    const [front, measurer] = trigger(enabled('observeIntervalSeconds = 1;')) as unknown[]
    expect(trigger(enabled())).not.toContainEqual(front)
    expect(trigger(enabled())).not.toContainEqual(measurer)
  })

  // A path of the Nix language would be copied to the store, where every user could read the join token.
  test.each([
    ['trustRootPin', 'trustRootPin = 5;', ''],
    ['trustRootPin', `trustRootPin = "${'A'.repeat(64)}";`, ''],
    ['installation', 'installation = "No Name";', ''],
    ['broker', 'broker = "ftp://broker.test";', ''],
    ['storeCheckIntervalSeconds', 'storeCheckIntervalSeconds = 61;', ''],
    ['observeIntervalSeconds', 'observeIntervalSeconds = "300";', ''],
    ['spiffeSocket', 'spiffeSocket = "agent.sock";', ''],
    ['user', 'user = "a b";', ''],
    ['actions.*do', 'actions = [ { id = "a"; do = "reboot"; on.units = [ ]; } ];', ''],
    [
      'tokenFiles.*mode',
      `tokenFiles = [ { unit = "a"; audience = "x"; path = "/t"; mode = "0644"; } ];`,
      '',
    ],
    ['later', 'later = /etc/passwd;', ''],
    ['joinTokenFile', '', 'joinTokenFile = /etc/passwd;'],
    ['joinTokenFile', '', 'joinTokenFile = "join.json";'],
  ])('a wrong %s is refused: %s %s', (option, settings, more) => {
    const own = /^(trustRootPin|installation|broker) =/.exec(settings)?.[1] ?? 'none'
    const rest = REQUIRED.replace(new RegExp(`\\b${own} = "[^"]*";`), '')
    expect(() =>
      evaluate(`{ enable = true; ${more} settings = { ${rest} ${settings} }; }`),
    ).toThrow(new RegExp(`definition for option .*${option}.* is not of type`))
  })

  test('what is missing or misspelt is refused by its name', () => {
    const least = `{ enable = true; settings = { installation = "demo"; trustRootPin = "${PIN}"; }; }`
    expect(() => evaluate(least)).toThrow(
      /settings\.broker.* was accessed but has no value defined/,
    )
    expect(() => evaluate('{ enabel = true; }')).toThrow(/agent\.enabel' does not exist/)
    const action = 'actions = [ { id = "a"; do = "restart"; on.units = [ ]; cods = [ ]; } ];'
    expect(() => enabled(action)).toThrow(/actions.*cods' does not exist/)
  })

  test.each([
    ['joinToken = "/j";', '', /settings\.joinToken: say .*joinTokenFile/],
    ['stateDir = "/s";', '', /stateDir: the units keep state/],
    ['', 'joinTokenFile = "/nix/store/x-join.json";', /in the Nix store, where every user/],
    ['', 'joinTokenFile = "${builtins.toFile "join.json" "{}"}";', /in the Nix store/],
    ['user = "x"; measurer.user = "x";', '', /both x/],
    ['measurer.user = "root";', '', /may be root/],
    ['user = "root";', '', /may be root/],
    ['socket = "/run/agent.sock";', '', /must lie in \/run\/bagcheck/],
    ['spiffeSocket = "/tmp/x/spiffe.sock";', '', /must lie in \/run\/bagcheck/],
  ])('an assertion says what is wrong with %s %s', (settings, more, message) => {
    expect(enabled(settings, more).refused).toEqual([expect.stringMatching(message)])
  })

  test.each([
    ['http://broker.test', /without TLS/],
    ['http://localhost.broker.test', /without TLS/],
    ['http://127.0.0.1@broker.test', /without TLS/],
    ['unix:/run/broker.sock', /settings\.issuer is needed/],
  ])('the broker %s is refused here, as by the agent', (broker, message) => {
    const settings = REQUIRED.replace('https://broker.test', broker)
    const host = evaluate(`{ enable = true; settings = { ${settings} }; }`)
    expect(host.refused).toEqual([expect.stringMatching(message)])
    expect(() => parsed(host)).toThrow(/^(CONFIG_|expected https|unexpected issuer)/)
  })

  test.each(['http://localhost:80', 'http://127.0.0.1:8080', 'http://[::1]:80'])(
    'the broker %s is accepted here, as by the agent',
    (broker) => {
      const settings = REQUIRED.replace('https://broker.test', broker)
      const host = evaluate(`{ enable = true; settings = { ${settings} }; }`)
      expect(host.refused).toEqual([])
      expect(parsed(host)).toMatchObject({ broker })
    },
  )

  test('where the measurer meets the front cannot be moved', () => {
    const settings = 'measurer.socket = "/tmp/measurer.sock";'
    // nixpkgs' lib lets it through as a key it does not know, and the module's assertion stops it.
    const said = (): string => {
      const { refused } = enabled(settings)
      throw new Error(refused.join('\n'))
    }
    expect(said).toThrow(/measurer\.socket/)
  })
})

describe.runIf(nixAvailable())('flake.nix', () => {
  let directory: string
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-flake-'))
    for (const name of ['flake.nix', 'nix'])
      cpSync(join(REPOSITORY, name), join(directory, name), { recursive: true })
  })
  afterAll(() => rmSync(directory, { recursive: true }))
  const features = ['--extra-experimental-features', 'nix-command flakes']

  test('exports the module, and needs no other flake', () => {
    const flake = `path:${directory}`
    const shown = runNix('nix', [...features, 'flake', 'show', '--json', '--offline', flake])
    const modules = { agent: { type: 'nixos-module' }, default: { type: 'nixos-module' } }
    expect(JSON.parse(shown)).toEqual({ nixosModules: modules })
    runNix('nix', [...features, 'flake', 'check', '--offline', flake])
  })
})
