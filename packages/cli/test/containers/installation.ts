// An installation with everything real in it: a closure that Nix built, its attestation, a signed policy, a
// broker, an agent. What the units are is for the test to say.
import { execFile } from 'node:child_process'
import { chmodSync, copyFileSync, realpathSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { NIX_DAEMON_SOCKET, NIX_DATABASE_FILE } from '@bagcheck/nix'
import { startActor, type Actor } from '../../src/demo/actor.ts'
import { nixEnvironment, startDaemon, writeInputs } from '../../src/demo/build.ts'
import { findFreePort, INSTALLATION, makePlaces, type Places } from '../../src/demo/stage.ts'
import { runCli } from '../../src/run.ts'
import { TABLE } from '../../src/table.ts'

const AGENT_UID = 61_010
const MEASURER_UID = 61_011
export const AUDIENCE = 'https://api.demo.test'

/** The bag of the tests: a perl that asks for tokens. */
export interface Bag {
  readonly root: string
  readonly closureDigest: string
  /** What its unit executes. */
  readonly perl: string
  readonly script: string
  /** Every path of the closure. */
  readonly paths: readonly string[]
}

/** What the policy says of one role; all run the same bag. */
export interface TestRole {
  /** YAML, in one line. */
  readonly unit: string
  readonly uid: number
  /** Further lines, such as `contract: …`. */
  readonly more?: readonly string[]
}

export interface Installation extends AsyncDisposable {
  readonly places: Places
  readonly bag: Bag
  readonly agent: Actor
  /** Runs one of our commands and returns what it says. */
  bagcheck(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }>
}

const lines = (...text: (string | readonly string[])[]): string => `${text.flat().join('\n')}\n`

/**
 * Builds `attribute` of `expressions`, attests and approves it for `roles`, and starts broker and agent.
 * @param agent further members of the agent's configuration
 */
export async function startInstallation(options: {
  readonly expressions: string
  readonly attribute: string
  readonly arguments?: (places: Places) => readonly string[]
  readonly roles: (bag: Bag) => Readonly<Record<string, TestRole>>
  readonly agent: (places: Places) => Readonly<Record<string, unknown>>
}): Promise<Installation> {
  const env = process.env
  const signal = new AbortController().signal
  const places = makePlaces(env)
  const run = async (...args: string[]) => {
    const printed = { stdout: '', stderr: '' }
    const code = await runCli(TABLE, args, {
      env: { ...nixEnvironment(), BAGCHECK_ADMIN_SOCKET: places.adminSocket },
      signal,
      now: () => new Date(),
      stdout: (text) => void (printed.stdout += text),
      stderr: (text) => void (printed.stderr += text),
      terminal: false,
      color: false,
    })
    return { code, ...printed }
  }
  const bagcheck = async <T = Record<string, unknown>>(...args: string[]): Promise<T> => {
    const { code, stdout, stderr } = await run(...args, '--json')
    if (code !== 0) throw new Error(`bagcheck ${args.join(' ')}: ${stderr}`)
    return JSON.parse(stdout) as T
  }
  const daemon = await startDaemon(signal)
  await using started = new AsyncDisposableStack()
  started.defer(() => void daemon.kill('SIGKILL'))
  const start = (program: 'broker' | 'agent', config: string): Actor => {
    const main = join(import.meta.dirname, `../../../${program}/src/main.ts`)
    const command = [process.execPath, '-C', '@bagcheck/source', main, '--config', config]
    const actor = startActor(program, command, signal)
    started.defer(() => actor.stop())
    return actor
  }

  const inputs = await writeInputs(places.directory)
  const { stdout: built } = await promisify(execFile)(
    'nix-build',
    [
      ...[options.expressions, '-A', options.attribute, '--no-out-link'],
      ...['--argstr', 'config', inputs, ...(options.arguments?.(places) ?? [])],
    ],
    { env: nixEnvironment() },
  )
  const root = built.trim()
  const { stdout: closure } = await promisify(execFile)('nix-store', ['-qR', root], {
    env: nixEnvironment(),
  })
  const key = join(places.directory, 'ci.pem')
  await bagcheck('keygen', key)
  const { closureDigest } = await bagcheck<{ closureDigest: string }>(
    ...['attest', root, '--key', key, '--pure', '-o', places.attestations],
  )
  const bag: Bag = {
    root,
    closureDigest,
    perl: realpathSync(join(root, 'bin/perl')),
    script: realpathSync(join(root, 'lib/ask.pl')),
    paths: closure.trim().split('\n'),
  }

  const { pin } = await bagcheck<{ pin: string }>(
    ...['policy', 'init', '--installation', INSTALLATION, '-o', places.trust],
  )
  copyFileSync(join(places.directory, 'ci.pub'), join(places.keys, 'ci.pub'))
  const source = join(places.trust, 'policy.yaml')
  const policy = join(places.trust, 'policy/policy.json')
  writeFileSync(source, policyText(bag, options.roles(bag)))
  await bagcheck('policy', 'compile', source, '-o', policy)
  for (const person of ['policy-1', 'policy-2'])
    await bagcheck('policy', 'sign', policy, '--key', join(places.keys, `${person}.pem`))

  const port = await findFreePort()
  const issuer = `http://127.0.0.1:${port}`
  const brokerConfig = join(dirname(places.adminSocket), 'broker.json')
  writePrivate(brokerConfig, {
    installation: INSTALLATION,
    issuer,
    stateDir: join(places.directory, 'broker-state'),
    listen: { host: '127.0.0.1', port, tls: null },
    adminSocket: places.adminSocket,
    store: { sqlite: 'bagcheck.sqlite' },
    trustRoot: { pin, chain: [join(places.trust, 'root.json')] },
    logKey: join(places.keys, 'log.key'),
    decisionKey: join(places.keys, 'broker.pem'),
  })
  const broker = start('broker', brokerConfig)
  await broker.next(({ msg }) => msg === 'ready', { timeoutMs: 60_000 })
  await bagcheck('policy', 'publish', policy, '--broker', issuer)
  await bagcheck('attest', 'submit', places.attestations, '--broker', issuer)
  const joinToken = join(places.keys, 'join.json')
  await bagcheck(
    ...['node', 'join-token', '--installation', INSTALLATION, '--class', 'demo', '-o', joinToken],
    ...['--key', join(places.keys, 'enrolment.pem')],
  )
  const agentConfig = join(places.directory, 'agent.json')
  writePrivate(agentConfig, {
    installation: INSTALLATION,
    broker: issuer,
    brokerCa: null,
    trustRootPin: pin,
    user: String(AGENT_UID),
    // Not root: what a container's measurement needs is three capabilities.
    measurer: { user: String(MEASURER_UID), stateDir: join(places.directory, 'measurer-state') },
    stateDir: join(places.directory, 'agent-state'),
    socket: places.agentSocket,
    unitsDir: places.unitsDirectory,
    joinToken,
    storeCheckIntervalSeconds: 0,
    nix: { daemonSocket: NIX_DAEMON_SOCKET, database: NIX_DATABASE_FILE },
    ...options.agent(places),
  })
  const agent = start('agent', agentConfig)
  await agent.next(({ msg }) => msg === 'ready', { timeoutMs: 60_000 })
  chmodSync(places.directory, 0o755)
  const held = started.move()
  return {
    ...{ places, bag, agent, bagcheck: run },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
}

function writePrivate(file: string, value: unknown): void {
  writeFileSync(file, JSON.stringify(value), { mode: 0o600 })
}

function policyText(bag: Bag, roles: Readonly<Record<string, TestRole>>): string {
  const expires = `${new Date(Date.now() + 86_400_000).toISOString().slice(0, 19)}Z`
  return lines(
    'schema: bagcheck.policy/v1',
    `installation: ${INSTALLATION}`,
    'version: 1',
    `expires: ${expires}`,
    'trustDomain: demo.bagcheck.test',
    'signers:',
    '  ci: { key: keys/ci.pub }',
    'profiles:',
    '  plain: { type: access_token, binding: none }',
    'roles:',
    Object.entries(roles).flatMap(([name, { unit, uid, more = [] }]) => [
      `  ${name}:`,
      '    nodeClasses: [demo]',
      `    unit: ${unit}`,
      `    uid: ${uid}`,
      '    entry:',
      '      kind: interpreter',
      "      executable: 'asking-perl-*/bin/perl'",
      "      script: 'asker-*/lib/ask.pl'",
      "      arguments: ['{script}']",
      ...more.map((line) => `    ${line}`),
      '    audiences:',
      `      ${AUDIENCE}:`,
      '        profile: plain',
      '        ttlSeconds: { min: 5, default: 300, max: 300 }',
      '        minTier: 0',
      '        minStrength: incremental',
      '        maxAgeFullSeconds: 86400',
      '    signers: [ci]',
      '    build: { sandbox: true, sandboxFallback: false, impure: false }',
      '    roots:',
      `      - { root: ${bag.root}, closure: ${bag.closureDigest} }`,
    ]),
  )
}
