// A whole Bagcheck for programs that speak SPIFFE: real Nix builds, a broker, an agent, units that
// `bagcheck exec` starts. Everything but the programs is what an operator would run.
import { spawn, type ChildProcess } from 'node:child_process'
import { chmodSync, copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { NIX_DAEMON_SOCKET, NIX_DATABASE_FILE } from '@bagcheck/nix'
import { nixEnvironment, startDaemon } from '../../src/demo/build.ts'
import { AGENT_UID } from '../../src/demo/policy-text.ts'
import { findFreePort } from '../../src/demo/stage.ts'
import { runCli } from '../../src/run.ts'
import { TABLE } from '../../src/table.ts'

const packages = join(import.meta.dirname, '../../..')
export const TRUST_DOMAIN = 'demo.bagcheck.test'
export const AUDIENCE = 'https://api.demo.test'

/** A role of the policy: who runs what. Every role may have an X.509-SVID, and a JWT-SVID for {@link AUDIENCE}. */
export interface SpiffeRole {
  /** Also the name of the unit. */
  readonly name: string
  readonly uid: number
  /** Lines below `entry:`. */
  readonly entry: readonly string[]
  readonly root: string
  /** Seconds that an X.509-SVID lives. */
  readonly ttl?: number
  /** Lines below `allow:`. */
  readonly allow?: readonly string[]
}

/** A program that runs, and what it printed so far. */
export interface Program extends AsyncDisposable {
  readonly lines: readonly string[]
  /** What it printed on standard error. */
  readonly complaints: readonly string[]
  /** Resolves to the first line that fits, from line `from` on; rejects if the program ends without one. */
  line(fits: (line: string) => boolean, from?: number): Promise<string>
  /** Resolves to the exit code. */
  readonly ended: Promise<number | null>
}

export interface SpiffeInstallation extends AsyncDisposable {
  readonly directory: string
  readonly issuer: string
  readonly spiffeSocket: string
  /** Attests closures, publishes a policy that approves them, and starts the agent. */
  open(roles: readonly SpiffeRole[]): Promise<void>
  /** Starts a unit. */
  exec(
    role: { readonly name: string; readonly uid: number },
    command: readonly string[],
    environment?: Readonly<Record<string, string>>,
  ): Program
}

/** Starts the Nix daemon and prepares the rest. */
export async function startInstallation(): Promise<SpiffeInstallation> {
  await using resources = new AsyncDisposableStack()
  const directory = mkdtempSync(join(tmpdir(), 'bagcheck-spiffe-'))
  resources.defer(() => rmSync(directory, { recursive: true, force: true }))
  // Units run as other users and must reach the sockets.
  chmodSync(directory, 0o755)
  const nix = await startDaemon(AbortSignal.timeout(60_000))
  resources.defer(() => ended(nix))
  const trust = join(directory, 'trust')
  const issuer = `http://127.0.0.1:${await findFreePort()}`
  const env: Record<string, string> = {
    ...(nixEnvironment() as Record<string, string>),
    BAGCHECK_BROKER: issuer,
  }

  async function bagcheck<T = Record<string, unknown>>(...argv: string[]): Promise<T> {
    const printed = { stdout: '', stderr: '' }
    const code = await runCli(TABLE, [...argv, '--json'], {
      env,
      signal: new AbortController().signal,
      now: () => new Date(),
      stdout: (text) => void (printed.stdout += text),
      stderr: (text) => void (printed.stderr += text),
      terminal: false,
      color: false,
    })
    if (code !== 0) throw new Error(`bagcheck ${argv.join(' ')}: ${printed.stderr}`)
    return JSON.parse(printed.stdout) as T
  }
  const held = resources.move()
  const ours = (name: string): string[] => [
    ...[process.execPath, '-C', '@bagcheck/source'],
    join(packages, name, 'src/main.ts'),
  ]
  const start = (command: readonly string[]): Program => {
    const program = startProgram(command)
    held.use(program)
    return program
  }

  async function open(roles: readonly SpiffeRole[]): Promise<void> {
    const { pin } = await bagcheck<{ pin: string }>(
      ...['policy', 'init', '--installation', 'demo', '-o', trust],
    )
    const key = join(directory, 'ci.pem')
    await bagcheck('keygen', key)
    copyFileSync(join(directory, 'ci.pub'), join(trust, 'keys/ci.pub'))
    const digests = new Map<string, string>()
    for (const root of new Set(roles.map((role) => role.root))) {
      const made = await bagcheck<{ closureDigest: string }>(
        ...['attest', root, '--key', key, '--pure', '-o', join(directory, 'attestations')],
      )
      digests.set(root, made.closureDigest)
    }
    const source = join(trust, 'policy.yaml')
    writeFileSync(source, policyText(roles, digests))
    const policy = join(trust, 'policy.json')
    await bagcheck('policy', 'compile', source, '-o', policy)
    for (const person of [1, 2])
      await bagcheck('policy', 'sign', policy, '--key', join(trust, `keys/policy-${person}.pem`))
    await startBroker(pin)
    await bagcheck('policy', 'publish', policy)
    await bagcheck('attest', 'submit', join(directory, 'attestations'))
    const joinToken = join(directory, 'join.json')
    await bagcheck(
      ...['node', 'join-token', '--installation', 'demo', '--class', 'demo', '-o', joinToken],
      ...['--key', join(trust, 'keys/enrolment.pem')],
    )
    const config = join(directory, 'agent.json')
    writeFileSync(
      config,
      JSON.stringify({
        ...{ installation: 'demo', broker: issuer, trustRootPin: pin, joinToken },
        ...{
          user: '61000',
          stateDir: join(directory, 'agent'),
          socket: join(directory, 'run/agent.sock'),
        },
        ...{ unitsDir: join(directory, 'units'), storeCheckIntervalSeconds: 0 },
        user: String(AGENT_UID),
        nix: { daemonSocket: NIX_DAEMON_SOCKET, database: NIX_DATABASE_FILE },
      }),
    )
    await start([...ours('agent'), '--config', config]).line((line) => line.includes('"ready"'))
  }

  async function startBroker(pin: string): Promise<void> {
    const config = join(directory, 'broker.json')
    const keys = join(trust, 'keys')
    writeFileSync(
      config,
      JSON.stringify({
        ...{ installation: 'demo', issuer, stateDir: join(directory, 'broker') },
        listen: { host: '127.0.0.1', port: Number(new URL(issuer).port), tls: null },
        adminSocket: join(directory, 'admin.sock'),
        store: { sqlite: 'bagcheck.sqlite' },
        trustRoot: { pin, chain: [join(trust, 'root.json')] },
        logKey: join(keys, 'log.key'),
        decisionKey: join(keys, 'broker.pem'),
      }),
      { mode: 0o600 },
    )
    await start([...ours('broker'), '--config', config]).line((line) => line.includes('"ready"'))
  }

  const spiffeSocket = join(directory, 'run/spiffe.sock')
  return {
    ...{ directory, issuer, spiffeSocket, open },
    exec: ({ name, uid }, command, environment = {}) => {
      const variables = { SPIFFE_ENDPOINT_SOCKET: `unix://${spiffeSocket}`, ...environment }
      const instance = `i${(serial += 1)}`
      const program = startProgram([
        ...[...ours('cli'), 'exec', '--name', name, '--instance', instance],
        ...['--user', String(uid), '--units-dir', join(directory, 'units')],
        ...Object.entries(variables).flatMap(([key, value]) => ['--env', `${key}=${value}`]),
        ...['--', ...command],
      ])
      held.use(program)
      return program
    },
    [Symbol.asyncDispose]: () => held.disposeAsync(),
  }
}

let serial = 0

function startProgram([file = '', ...args]: readonly string[]): Program {
  const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  const lines: string[] = []
  const complaints: string[] = []
  let wake = Promise.withResolvers<void>()
  const heard = (): void => {
    wake.resolve()
    wake = Promise.withResolvers()
  }
  createInterface({ input: child.stdout }).on('line', (line) => {
    lines.push(line)
    heard()
  })
  createInterface({ input: child.stderr }).on('line', (line) => complaints.push(line))
  let isOver = false
  const gone = new Promise<number | null>((resolve) => {
    child.once('close', (code) => {
      isOver = true
      heard()
      resolve(code)
    })
  })
  return {
    ...{ lines, complaints },
    ended: gone,
    async line(fits, from = 0) {
      for (const deadline = Date.now() + 60_000; ;) {
        const found = lines.slice(from).find(fits)
        if (found !== undefined) return found
        if (isOver || Date.now() > deadline)
          throw new Error(
            `${args.at(-1)} did not say it: ${[...lines.slice(-5), ...complaints.slice(-10)].join('\n')}`,
          )
        const timer = setTimeout(heard, 1000)
        await wake.promise
        clearTimeout(timer)
      }
    },
    [Symbol.asyncDispose]: () => ended(child),
  }
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = new Promise((resolve) => child.once('exit', resolve))
  child.kill('SIGTERM')
  const timer = setTimeout(() => child.kill('SIGKILL'), 5000)
  await gone
  clearTimeout(timer)
}

function policyText(roles: readonly SpiffeRole[], digests: ReadonlyMap<string, string>): string {
  const expires = `${new Date(Date.now() + 86_400_000).toISOString().slice(0, 19)}Z`
  const checks = 'minTier: 0, minStrength: incremental, maxAgeFullSeconds: 86400'
  const lines = roles.flatMap(({ name, uid, entry, root, ttl = 60, allow = [] }) => [
    `  ${name}:`,
    '    nodeClasses: [demo]',
    `    unit: { launcher: bagcheck-exec, name: ${name} }`,
    `    uid: ${uid}`,
    '    entry:',
    ...entry.map((line) => `      ${line}`),
    '    audiences:',
    `      spiffe://${TRUST_DOMAIN}: { profile: svid, ttlSeconds: { min: 5, default: ${ttl}, max: 3600 }, ${checks} }`,
    `      ${AUDIENCE}: { profile: jwt, ${checks} }`,
    '    signers: [ci]',
    '    build: { sandbox: true, sandboxFallback: false, impure: false }',
    '    roots:',
    `      - { root: ${root}, closure: ${digests.get(root)}, state: active }`,
    ...(allow.length === 0 ? [] : ['    allow:', ...allow.map((line) => `      ${line}`)]),
  ])
  return `schema: bagcheck.policy/v1
installation: demo
version: 1
expires: ${expires}
trustDomain: ${TRUST_DOMAIN}
signers:
  ci: { key: keys/ci.pub }
profiles:
  svid: { type: x509_svid }
  jwt: { type: jwt_svid }
roles:
${lines.join('\n')}
`
}
