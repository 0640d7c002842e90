// Rolling back: real profiles with generations that real Nix made, a policy that people signed, the shipped unit that
// does it as root, in a real systemd. Who asks is the agent's user, whom somebody may have taken over.
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { formatEnvelope, parseSigningKey, type VerifyingKey } from '@bagcheck/attest'
import {
  nixAvailable,
  nixBuild,
  shellDerivation,
  startNixDaemon,
  startSystemd,
  systemdAvailable,
  type TestNixDaemon,
  type TestSystemd,
} from '@bagcheck/testkit'
import { openNixDatabase, readClosure, type StorePath } from '@bagcheck/nix'
import { createTrustRoot, verifyTrustRootChain, type TrustRole } from '@bagcheck/policy'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'

const REPOSITORY = resolve(import.meta.dirname, '..')
const PROFILES = '/nix/var/nix/profiles'
const PROFILE = `${PROFILES}/orders`
const SYSTEM = `${PROFILES}/system`
const POLICY = '/run/bagcheck/policy.json'
const UNIT = 'orders.service'

interface Bag {
  readonly root: StorePath
  readonly closure: string
}
interface Said {
  readonly code?: string
  readonly message?: string
  readonly switched?: boolean
  readonly to?: { readonly number: number; readonly path: string }
}

describe.runIf(nixAvailable() && systemdAvailable())('a rollback', () => {
  let directory: string
  let node: string
  let daemon: TestNixDaemon
  let systemd: TestSystemd
  let pin: string
  const bags = new Map<string, Bag>()
  const bag = (name: string): Bag => bags.get(name) as Bag

  const bagcheck = (...argv: string[]): string => {
    const main = join(REPOSITORY, 'packages/cli/src/main.ts')
    const done = spawnSync(process.execPath, ['-C', '@bagcheck/source', main, ...argv], {
      encoding: 'utf8',
    })
    expect(done).toMatchObject({ status: 0 })
    return done.stdout
  }

  /** A service that sleeps, and its unit file. */
  const build = async (name: string): Promise<void> => {
    const script = `mkdir -p $out/bin $out/lib/systemd/system
      cp /bin/sh $out/bin/sleep; echo ${name} > $out/name
      printf '[Service]\\nType=exec\\nExecStart=%s/bin/sleep 100000\\n' $out > $out/lib/systemd/system/${UNIT}
      printf '#!/bin/sh\\necho "$0 $1" >> /run/switched\\n' > $out/bin/switch-to-configuration
      chmod +x $out/bin/switch-to-configuration`
    const root = nixBuild(shellDerivation(name, script))
    const database = openNixDatabase()
    const { digest } = await readClosure(database, root)
    await database.close()
    bags.set(name, { root, closure: digest })
  }

  beforeAll(async () => {
    directory = mkdtempSync('/nix/bagcheck-rollback-')
    chmodSync(directory, 0o755)
    mkdirSync(PROFILES, { recursive: true })
    for (const name of ['first', 'foreign', 'good', 'bad', 'worse']) await build(name)
    const dist = join(directory, 'dist')
    const built = ['-C', '@bagcheck/source', join(REPOSITORY, 'scripts/build.ts'), dist]
    expect(spawnSync(process.execPath, built)).toMatchObject({ status: 0 })
    node = join(dist, 'node')
    copyFileSync(process.execPath, node)
    const trust = join(directory, 'trust')
    bagcheck('policy', 'init', '--installation', 'demo', '-o', trust)
    bagcheck('keygen', join(trust, 'keys/ci.pem'))
    pin = bagcheck('policy', 'pin', join(trust, 'root.json')).trim()
    daemon = await startNixDaemon(join(directory, 'daemon'))
    const shipped = (name: string): string =>
      readFileSync(join(REPOSITORY, 'deploy/systemd', name), 'utf8')
    systemd = await startSystemd(
      Object.fromEntries(
        ['bagcheck-actions.socket', 'bagcheck-actions.service'].map((name) => [
          name,
          shipped(name),
        ]),
      ),
      ['/nix'],
    )
    const on = { units: [UNIT] }
    systemd.write(
      '/etc/bagcheck/agent.json',
      JSON.stringify({
        ...{ installation: 'demo', broker: 'https://broker.test', trustRootPin: pin },
        nix: { daemonSocket: daemon.socketPath },
        actions: [{ id: 'back', do: 'rollback', on, profile: PROFILE, minIntervalSeconds: 10 }],
      }),
    )
    const here = '[Service]\nStandardError=append:/run/log\nPrivateDevices=no\n'
    systemd.write('/etc/systemd/system/bagcheck-actions.service.d/here.conf', here)
    const prepare = `
      printf 'bagcheck-agent:x:901:901::/:/bin/false\\n' >> /etc/passwd
      printf 'bagcheck-agent:x:901:\\n' >> /etc/group
      mkdir -p /opt /var/lib; ln -s "$1" /opt/bagcheck
      mkdir /run/bagcheck; chown bagcheck-agent /run/bagcheck
      mount -t tmpfs -o mode=755 profiles ${PROFILES}
      ln -s ${PROFILE}/lib/systemd/system/${UNIT} /etc/systemd/system/${UNIT}`
    systemd.run('sh', '-c', prepare, 'sh', dist)
  })
  afterAll(async () => {
    await systemd?.[Symbol.asyncDispose]()
    await daemon?.stop()
    rmSync(directory, { recursive: true })
  })

  /** Has Nix make the generations 1, 2, … of a profile. */
  const generations = (profile: string, ...names: string[]): void => {
    const env = ['env', `NIX_REMOTE=unix://${daemon.socketPath}`, 'nix-env', '--profile', profile]
    for (const name of names) systemd.run(...(env as ['env']), '--set', bag(name).root)
  }
  const current = (profile = PROFILE): string =>
    systemd.run('sh', '-c', 'basename "$(readlink "$1")"', 'sh', profile).trim()

  interface Wanted {
    readonly approved: readonly string[]
    readonly version?: number
    readonly signers?: readonly string[]
    readonly expires?: string
    readonly systems?: readonly string[]
    /** A digest that all roots are approved with. */
    readonly closure?: string
    readonly revoked?: readonly string[]
  }
  /** The answer of a broker with a policy that approves these. */
  const policy = (wanted: Wanted): string => {
    const known = policies.get(JSON.stringify(wanted)) ?? sign(wanted)
    policies.set(JSON.stringify(wanted), known)
    return known
  }
  const policies = new Map<string, string>()
  const sign = (wanted: Wanted): string => {
    const { approved, version = 1, signers = ['policy-1', 'policy-2'], systems = [] } = wanted
    const { revoked = [], closure } = wanted
    const tomorrow = new Date(Date.now() + 86_400_000).toISOString().replace(/\.\d+Z/, 'Z')
    const roots = (names: readonly string[]): unknown[] =>
      names.map((name) => ({
        root: bag(name).root,
        closure: closure ?? bag(name).closure,
        state: revoked.includes(name) ? 'revoked' : 'active',
      }))
    const audience = { profile: 'api', minTier: 0, minStrength: 'full', maxAgeFullSeconds: 3600 }
    const text = {
      ...{ schema: 'bagcheck.policy/v1', installation: 'demo', version },
      ...{ expires: wanted.expires ?? tomorrow, trustDomain: 'demo.test' },
      signers: { ci: { key: 'keys/ci.pub' } },
      profiles: { api: { type: 'access_token', binding: 'dpop' } },
      hosts: { web: { signers: ['ci'], systems: roots(systems) } },
      roles: {
        orders: {
          nodeClasses: ['web'],
          unit: { launcher: 'systemd', name: UNIT, cgroup: `/system.slice/${UNIT}` },
          uid: 0,
          entry: { kind: 'native', executable: '*/bin/sleep' },
          audiences: { 'https://api.test': audience },
          ...{ signers: ['ci'], roots: roots(approved) },
          build: { sandbox: true, sandboxFallback: false, impure: false },
        },
      },
    }
    const trust = join(directory, 'trust')
    const made = mkdtempSync(join(trust, 'v-'))
    const [yaml, json] = [join(trust, 'policy.yaml'), join(made, 'policy.json')]
    spawnSync('sh', ['-c', 'cat > "$0"', yaml], { input: JSON.stringify(text) })
    bagcheck('policy', 'compile', yaml, '-o', json)
    // A version that follows another names it.
    const before = join(trust, `before-${version - 1}.json`)
    const previous = version === 1 ? [] : ['--previous', before]
    for (const person of signers)
      bagcheck('policy', 'sign', json, '--key', join(trust, `keys/${person}.pem`), ...previous)
    copyFileSync(json, join(trust, `before-${version}.json`))
    const compiled = readFileSync(json, 'utf8')
    return JSON.stringify({
      ...{ version, sha256: '0'.repeat(64), policy: compiled, logIndex: 1 },
      envelope: readFileSync(join(made, 'policy.dsse.json'), 'utf8'),
      rootChain: [readFileSync(join(trust, 'root.json'), 'utf8')],
    })
  }
  const publish = (text: string): void => systemd.write(POLICY, text)

  /** Runs the command by hand. */
  const roll = (...more: string[]): Said => {
    const script = `/opt/bagcheck/bagcheck rollback --json --policy ${POLICY} --installation demo \\
      --daemon-socket ${daemon.socketPath} --state /run/state "$@" 2>&1 || true`
    const lines = systemd.run('sh', '-c', script, 'sh', ...more).split('\n')
    // Node may say something about its surroundings, too.
    return JSON.parse(lines.findLast((line) => line.startsWith('{')) ?? '') as Said
  }
  const dry = (...more: string[]): Said =>
    roll(PROFILE, '--unit', UNIT, '--trust', `sha256:${pin}`, '--dry-run', ...more)

  /** A second version of the trust root, with the keys of the first. */
  const nextTrustRoot = (): string => {
    const trust = join(directory, 'trust')
    const first = verifyTrustRootChain([readFileSync(join(trust, 'root.json'))], {
      ...{ pin, now: new Date() },
    })
    const role = (
      name: TrustRole,
    ): { threshold: number; keys: { name: string; key: VerifyingKey }[] } => ({
      threshold: first.roles[name].threshold,
      keys: first.roles[name].keys.map((key) => ({
        name: first.names.get(key.keyId) ?? '',
        key,
      })),
    })
    const roles = {
      ...{ root: role('root'), policy: role('policy'), approvals: role('approvals') },
      ...{ enrolment: role('enrolment'), broker: role('broker') },
    }
    const { installation, expires, log, digest } = first
    const next = { installation, expires, log, version: 2, prev: digest }
    const signers = ['root-1', 'root-2', 'root-3'].map((name) =>
      parseSigningKey(readFileSync(join(trust, `keys/${name}.pem`), 'utf8')),
    )
    return formatEnvelope(createTrustRoot({ ...next, roles }, signers))
  }

  /** In front of Nix's daemon: the first connection waits for so long, and is then dropped or passed on like the others. */
  const startFlakyDaemon = async (
    waitMs: number,
    then: 'drop' | 'pass',
  ): Promise<{ socketPath: string } & AsyncDisposable> => {
    const socketPath = join(directory, `flaky-${then}`)
    const program = `const net = require('node:net'); let first = true
      net.createServer({ pauseOnConnect: true }, (client) => {
        const was = first; first = false
        client.on('error', () => client.destroy())
        setTimeout(() => {
          if (was && ${then === 'drop'}) return client.destroy()
          const nix = net.connect(${JSON.stringify(daemon.socketPath)})
          nix.on('error', () => client.destroy())
          client.pipe(nix).pipe(client)
        }, was ? ${waitMs} : 0)
      }).listen(${JSON.stringify(socketPath)}, () => console.log('ready'))`
    const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] })
    await once(child.stdout, 'data')
    return {
      socketPath,
      [Symbol.asyncDispose]: async () => {
        const ended = once(child, 'exit')
        child.kill()
        await ended
        rmSync(socketPath, { force: true })
      },
    }
  }

  /** Asks the unit as the agent's user does. */
  const ask = (): { ok: boolean; code?: string; reason?: string } => {
    const request = { schema: 'bagcheck.action/v1', action: 'back', unit: UNIT }
    const program = `const socket = require('node:net').connect('/run/bagcheck-actions/actions.sock')
      socket.on('data', (data) => console.log(String(data)))
      socket.end(${JSON.stringify(`${JSON.stringify(request)}\n`)})`
    const as = ['setpriv', '--reuid', '901', '--regid', '901', '--clear-groups'] as const
    return JSON.parse(systemd.run(...as, node, '-e', program)) as ReturnType<typeof ask>
  }
  const runs = (): string =>
    systemd
      .run('readlink', `/proc/${systemd.mainPid(UNIT)}/exe`)
      .trim()
      .split('/bin/')[0] ?? ''

  beforeEach(() => {
    const clean = `rm -rf /run/state /var/lib/bagcheck-actions/* /run/log /run/switched ${PROFILES}/*
      systemctl stop ${UNIT} bagcheck-actions.service bagcheck-actions.socket 2> /dev/null || true`
    systemd.run('sh', '-c', clean)
    generations(PROFILE, 'first', 'foreign', 'good', 'bad')
  })

  test('puts the newest earlier generation in force that is approved, restarts the service, and not again at once', () => {
    systemd.run('systemctl', 'daemon-reload')
    systemd.run('systemctl', 'start', UNIT, 'bagcheck-actions.socket')
    expect([runs(), current()]).toEqual([bag('bad').root, 'orders-4-link'])
    publish(policy({ approved: ['first', 'good'] }))
    expect(ask()).toEqual({ ok: true })
    expect([runs(), current()]).toEqual([bag('good').root, 'orders-3-link'])
    const log = systemd.run('cat', '/run/log')
    expect(log).toContain('"msg":"rolled back"')
    expect(log).toContain(bag('bad').root)
    // The helper itself makes no second try within the interval, nor does it after a restart of its own.
    expect(ask()).toMatchObject({ ok: false, code: 'ACTION_LIMIT' })
    generations(PROFILE, 'worse')
    systemd.run('systemctl', 'restart', 'bagcheck-actions.service')
    expect(ask()).toMatchObject({ code: 'ACTION_FAILED', reason: 'ROLLBACK_LIMIT' })
    expect(current()).toBe('orders-5-link')
    // Nix takes the profile as its own afterwards.
    expect(systemd.run('ls', PROFILES)).not.toMatch(/lock|rollback/)
  })

  test('is Nix’s own switch: it waits for the lock, and Nix switches forward again', () => {
    publish(policy({ approved: ['good'] }))
    const forward = `flock ${PROFILE}.lock sleep 2 & sleep 0.5
      /opt/bagcheck/bagcheck rollback ${PROFILE} --unit ${UNIT} --policy ${POLICY} --installation demo \\
        --trust sha256:${pin} --daemon-socket ${daemon.socketPath} --state /run/state > /dev/null 2>&1 || true
      wait; readlink ${PROFILE}`
    expect(systemd.run('sh', '-c', forward).trim()).toBe('orders-3-link')
    const env = `NIX_REMOTE=unix://${daemon.socketPath}`
    const list = ['env', env, 'nix-env', '--profile', PROFILE] as const
    expect(systemd.run(...list, '--list-generations')).toMatch(/^ +3 .*\(current\)/m)
    systemd.run(...list, '--switch-generation', '4')
    expect(current()).toBe('orders-4-link')
  })

  test('nothing is switched back and forth: what was left once is left to people', () => {
    publish(policy({ approved: ['good'] }))
    const args = [PROFILE, '--unit', UNIT, '--trust', `sha256:${pin}`, '--min-interval', '1']
    systemd.run('systemctl', 'daemon-reload')
    expect(roll(...args)).toMatchObject({ switched: true, to: { number: 3 } })
    generations(PROFILE, 'bad')
    systemd.run('sleep', '1.1')
    expect(roll(...args)).toMatchObject({ code: 'ROLLBACK_FLAPPING' })
    expect(current()).toBe('orders-4-link')
  })

  test('a generation that is approved and intact is not left, whoever wants it', () => {
    publish(policy({ approved: ['first', 'good', 'bad'] }))
    expect(dry()).toMatchObject({ code: 'ROLLBACK_NOT_NEEDED' })
  })

  test('nor is one of which Nix says nothing: who can keep it from answering gets no rollback', async () => {
    publish(policy({ approved: ['first', 'good', 'bad'] }))
    await using flaky = await startFlakyDaemon(0, 'drop')
    expect(dry('--daemon-socket', flaky.socketPath).code).toMatch(/^DAEMON_/)
    expect(dry('--daemon-socket', flaky.socketPath)).toMatchObject({ code: 'ROLLBACK_NOT_NEEDED' })
  })

  test('a second one at the same time is refused, so that neither forgets what the other has seen', async () => {
    const [first, second] = [
      policy({ approved: ['first', 'good'] }),
      policy({ approved: ['first'], version: 2 }),
    ]
    publish(policy({ approved: ['bad', 'good'] })) // so that its content is read, and slowly
    await using slow = await startFlakyDaemon(6000, 'pass')
    const background = `/opt/bagcheck/bagcheck rollback ${PROFILE} --unit ${UNIT} --policy ${POLICY} \\
      --installation demo --trust sha256:${pin} --daemon-socket ${slow.socketPath} --state /run/state --dry-run \\
      > /run/slow 2>&1 &
      until test -e /run/state/rollbacks.json; do sleep 0.1; done`
    systemd.run('sh', '-c', background)
    publish(second)
    const beside = dry()
    expect(beside).toMatchObject({ code: 'ROLLBACK_LIMIT' })
    expect(beside.message).toMatch(/under way/)
    systemd.run('sh', '-c', 'until grep -q ROLLBACK_NOT_NEEDED /run/slow; do sleep 0.1; done')
    expect(dry()).toMatchObject({ to: { number: 1 } })
    publish(first)
    expect(dry()).toMatchObject({ code: 'ROLLBACK_LIMIT' })
  })

  test('what is not approved any more when it has been read is not switched to', async () => {
    await using slow = await startFlakyDaemon(5000, 'pass')
    const soon = new Date(Date.now() + 5000).toISOString().replace(/\.\d+Z/, 'Z')
    publish(policy({ approved: ['good'], expires: soon }))
    expect(dry('--daemon-socket', slow.socketPath)).toMatchObject({ code: 'POLICY_EXPIRED' })
  })

  test('nobody but root keeps one from being made, whoever may read where it is remembered', () => {
    publish(policy({ approved: ['good'] }))
    const hold = `mkdir -m 755 /run/state
      setpriv --reuid 901 --clear-groups flock /run/state sh -c 'echo held > /dev/shm/held; sleep 20' > /dev/null 2>&1 &
      until test -s /dev/shm/held; do sleep 0.1; done`
    systemd.run('sh', '-c', hold)
    expect(dry()).toMatchObject({ to: { number: 3 } })
  })

  test('one that runs out of memory takes the process that counts restarts not with it', () => {
    systemd.run('systemctl', 'daemon-reload')
    const of = ['-P', 'OOMPolicy', 'bagcheck-actions.service'] as const
    expect(systemd.run('systemctl', 'show', ...of).trim()).toBe('continue')
  })

  test('a generation that is exchanged after it was looked at is not switched to', () => {
    publish(policy({ approved: ['good'] }))
    const forward = `flock ${PROFILE}.lock sh -c '
        until grep -q ${PROFILE} /run/state/rollbacks.json 2> /dev/null; do sleep 0.1; done
        ln -sfn ${bag('foreign').root} ${PROFILE}-3-link' &
      sleep 0.5
      /opt/bagcheck/bagcheck rollback ${PROFILE} --unit ${UNIT} --policy ${POLICY} --installation demo --json \\
        --trust sha256:${pin} --daemon-socket ${daemon.socketPath} --state /run/state 2>&1 || true
      wait`
    expect(systemd.run('sh', '-c', forward)).toContain('ROLLBACK_PROFILE')
    expect(current()).toBe('orders-4-link')
  })

  test('a policy by an older trust root than one that was seen is refused, however new', () => {
    const by = (text: string, rootChain: readonly string[]): string =>
      JSON.stringify({ ...(JSON.parse(text) as object), rootChain })
    const chain = [
      readFileSync(join(directory, 'trust/root.json'), 'utf8'),
      nextTrustRoot(),
    ] as const
    publish(by(policy({ approved: ['good'] }), chain))
    expect(dry()).toMatchObject({ to: { number: 3 } })
    publish(by(policy({ approved: ['first'], version: 2 }), [chain[0]]))
    const seen = dry()
    expect(seen).toMatchObject({ code: 'ROLLBACK_LIMIT' })
    expect(seen.message).toMatch(/trust root version 2 or a later one, saw 1/)
    publish(by(policy({ approved: ['first'], version: 2 }), chain))
    expect(dry()).toMatchObject({ to: { number: 1 } })
  })

  test('a path alone is not approved, and neither is what was altered', () => {
    publish(policy({ approved: ['good'], closure: 'e'.repeat(64) }))
    expect(dry()).toMatchObject({ code: 'ROLLBACK_NONE' })
    publish(policy({ approved: ['first', 'good'], version: 2 }))
    expect(dry()).toMatchObject({ to: { number: 3, path: bag('good').root }, switched: false })
    const file = join(bag('good').root, 'name')
    const altered = `mount -o remount,rw /nix 2> /dev/null; chmod u+w "$0" "$(dirname "$0")" && echo evil > "$0"`
    expect(spawnSync('sh', ['-c', altered, file])).toMatchObject({ status: 0 })
    expect(dry()).toMatchObject({ to: { number: 1, path: bag('first').root } })
    const mended = `echo good > "$0"; chmod 444 "$0"; chmod 555 "$(dirname "$0")"; touch -d @1 "$0" "$(dirname "$0")"`
    expect(spawnSync('sh', ['-c', mended, file])).toMatchObject({ status: 0 })
    expect(dry()).toMatchObject({ to: { number: 3 } })
  })

  test.each<[string, () => string, string]>([
    ['nothing is approved', () => policy({ approved: ['worse'] }), 'ROLLBACK_NONE'],
    [
      'it is revoked',
      () => policy({ approved: ['first', 'good'], revoked: ['first', 'good'] }),
      'ROLLBACK_NONE',
    ],
    [
      'one of two has signed',
      () => policy({ approved: ['good'], signers: ['policy-1'] }),
      'POLICY_SIGNATURES',
    ],
    [
      'the policy was altered',
      () => policy({ approved: ['good'] }).replaceAll(bag('good').root, bag('foreign').root),
      'POLICY_STATEMENT',
    ],
    ['it is no policy', () => '{}', 'FILE_UNREADABLE'],
  ])('nothing is switched where %s', (_what, make, code) => {
    publish(make())
    expect(dry()).toMatchObject({ code })
    expect(current()).toBe('orders-4-link')
  })

  test('an older policy than one that was seen is refused, and an expired one', () => {
    const [first, second] = [
      policy({ approved: ['first', 'good'] }),
      policy({ approved: ['first'], version: 2 }),
    ]
    publish(second)
    expect(dry()).toMatchObject({ to: { number: 1 } })
    publish(first)
    expect(dry()).toMatchObject({ code: 'ROLLBACK_LIMIT' })
    const soon = new Date(Date.now() + 2000).toISOString().replace(/\.\d+Z/, 'Z')
    publish(policy({ approved: ['good'], version: 3, expires: soon }))
    systemd.run('sleep', '3')
    expect(dry()).toMatchObject({ code: 'POLICY_EXPIRED' })
  })

  test('another trust root or installation is refused, and what is no file in the place of the policy', () => {
    publish(policy({ approved: ['good'] }))
    const of = (...more: string[]): Said => roll(PROFILE, '--unit', UNIT, '--dry-run', ...more)
    expect(of('--trust', `sha256:${'a'.repeat(64)}`).code).toMatch(/^TRUST_ROOT_/)
    expect(dry('--installation', 'other')).toMatchObject({ code: 'REFUSED' })
    for (const make of ['ln -sf /etc/passwd', 'mkfifo -m 666', 'mkdir', 'truncate -s 300M']) {
      systemd.run('sh', '-c', `rm -rf ${POLICY}; ${make} ${POLICY}`)
      expect(dry()).toMatchObject({ code: 'FILE_UNREADABLE' })
    }
    systemd.run('rm', POLICY)
  })

  test('generations and profiles that others may have made are refused', () => {
    publish(policy({ approved: ['good'] }))
    systemd.run('ln', '-sfn', '/tmp/evil', `${PROFILE}-3-link`)
    expect(dry()).toMatchObject({ code: 'ROLLBACK_PROFILE' })
    systemd.run('ln', '-sfn', bag('good').root, `${PROFILE}-3-link`)
    systemd.run('chown', '-h', '901', `${PROFILE}-3-link`)
    expect(dry()).toMatchObject({ code: 'ROLLBACK_PROFILE' })
    systemd.run('chown', '-h', '0', `${PROFILE}-3-link`)
    systemd.run('chmod', '777', PROFILES)
    expect(dry()).toMatchObject({ code: 'ROLLBACK_PROFILE' })
    systemd.run('chmod', '755', PROFILES)
    expect(dry()).toMatchObject({ to: { number: 3 } })
    systemd.run('ln', '-sfn', bag('good').root, PROFILE)
    expect(dry()).toMatchObject({ code: 'ROLLBACK_PROFILE' })
  })

  test('a system is switched by its own script, outside of the unit that asks', () => {
    generations(SYSTEM, 'good', 'bad')
    publish(policy({ approved: ['worse'], systems: ['good'] }))
    const args = [SYSTEM, '--trust', `sha256:${pin}`, '--host-class']
    expect(roll(...args, 'db')).toMatchObject({ code: 'ROLLBACK_NONE' })
    expect(roll(...args, 'web')).toMatchObject({ switched: true, to: { number: 1 } })
    expect(current(SYSTEM)).toBe('system-1-link')
    const script = `${bag('good').root}/bin/switch-to-configuration`
    expect(systemd.run('cat', '/run/switched')).toBe(`${script} switch\n`)
  })
})
