// What a host needs to attest, to run units and to run the demo.
import { readFile, stat } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { problemSchema, z } from '@bagcheck/api'
import { connectDaemon, NIX_DAEMON_SOCKET } from '@bagcheck/nix'
import { askAgent } from './agent-access.ts'
import { openBroker } from './broker-access.ts'
import { findCommand, NEEDED_COMMANDS } from './demo/build.ts'
import { findCgroupMount } from './unit/cgroup.ts'

/** One thing that was looked at. */
export interface Finding {
  /** `note`: missing, and needed for some purposes only. */
  readonly state: 'ok' | 'note' | 'missing'
  readonly what: string
  readonly seen: string
  readonly remedy?: string
}

/** What `GET /healthz` of the agent says of itself. */
const healthSchema = z.looseObject({
  ...{ node: z.string(), nodeClass: z.string(), expiresAt: z.int(), policyVersion: z.int() },
})

const NODE_MINIMUM: readonly [number, number] = [24, 15]

/** Debian's package of each command that the demo needs. */
const PACKAGES: Readonly<Record<string, string>> = {
  'nix-build': 'nix-bin',
  'nix-daemon': 'nix-bin',
  patchelf: 'patchelf',
  busybox: 'busybox-static',
  perl: 'perl-base',
}

/** Looks at everything, in the order in which one would set it up. */
export async function examineHost(
  values: {
    readonly agent: string
    readonly broker: string | undefined
    readonly 'broker-ca': string | undefined
    readonly admin: string | undefined
  },
  signal: AbortSignal,
): Promise<Finding[]> {
  return [
    examineNode(),
    await examineProc(),
    await examineCgroup(),
    examineUser(),
    await examineDaemon(),
    ...(await Promise.all(NEEDED_COMMANDS.map(examineCommand))),
    await examineAgent(values.agent, signal),
    await examineBroker(values),
  ]
}

function examineNode(): Finding {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  const enough = major > NODE_MINIMUM[0] || (major === NODE_MINIMUM[0] && minor >= NODE_MINIMUM[1])
  return enough
    ? { state: 'ok', what: 'Node', seen: process.version }
    : {
        state: 'missing',
        what: 'Node',
        seen: process.version,
        remedy: `Node ${NODE_MINIMUM.join('.')} or later is needed`,
      }
}

async function examineProc(): Promise<Finding> {
  const release = await readFile('/proc/sys/kernel/osrelease', 'utf8').catch(() => undefined)
  return release === undefined
    ? { state: 'missing', what: '/proc', seen: 'not readable', remedy: 'mount -t proc proc /proc' }
    : { state: 'ok', what: 'kernel', seen: release.trim() }
}

async function examineCgroup(): Promise<Finding> {
  const mount = await findCgroupMount()
  return mount === undefined
    ? {
        state: 'missing',
        what: 'unified cgroup hierarchy',
        seen: 'not mounted',
        remedy: 'mount -t cgroup2 none /sys/fs/cgroup',
      }
    : { state: 'ok', what: 'unified cgroup hierarchy', seen: mount }
}

function examineUser(): Finding {
  return process.getuid?.() === 0
    ? { state: 'ok', what: 'privileges', seen: 'root' }
    : {
        state: 'note',
        what: 'privileges',
        seen: `uid ${process.getuid?.()}`,
        remedy: 'bagcheck exec, the agent and the demo need root',
      }
}

async function examineDaemon(): Promise<Finding> {
  const what = 'Nix daemon'
  try {
    const daemon = await connectDaemon({ timeoutMs: 2000 })
    await daemon.close()
    return { state: 'ok', what, seen: `version ${daemon.nixVersion} at ${NIX_DAEMON_SOCKET}` }
  } catch (error) {
    return {
      state: 'note',
      what,
      seen: (error as Error).message,
      remedy: 'start nix-daemon, or use --source database (the demo starts its own)',
    }
  }
}

async function examineCommand(name: string): Promise<Finding> {
  const file = await findCommand(name)
  return file === undefined
    ? {
        state: 'note',
        what: name,
        seen: 'not installed',
        remedy: `apt-get install ${PACKAGES[name] ?? name} (the demo needs it)`,
      }
    : { state: 'ok', what: name, seen: file }
}

async function examineAgent(socket: string, signal: AbortSignal): Promise<Finding> {
  const what = 'agent'
  if ((await stat(socket).catch(() => undefined)) === undefined)
    return { state: 'note', what, seen: `no socket ${socket}`, remedy: 'start bagcheck-agent' }
  const closed = await findClosedDirectory(dirname(resolve(socket)))
  if (closed !== undefined)
    return {
      state: 'missing',
      what,
      seen: `${socket} is in ${closed}, which other users may not enter`,
      remedy: `chmod o+x ${closed}`,
    }
  try {
    const { status, body } = await askAgent(socket, signal, 'GET', '/healthz')
    const health = healthSchema.safeParse(body)
    if (status !== 200 || !health.success) {
      const problem = problemSchema.safeParse(body)
      const said = problem.success
        ? `${problem.data.code}: ${problem.data.error_description}`
        : `status ${status}`
      return { state: 'missing', what, seen: `${socket}: ${said}`, remedy: "see the agent's log" }
    }
    const { node, nodeClass, expiresAt, policyVersion } = health.data
    const until = new Date(expiresAt * 1000).toISOString()
    const policy = policyVersion === 0 ? 'no policy read yet' : `policy version ${policyVersion}`
    const seen = `${socket}, ${node} of class ${nodeClass} until ${until}, ${policy}`
    return { state: 'ok', what, seen }
  } catch (error) {
    return {
      state: 'missing',
      what,
      seen: (error as Error).message,
      remedy: 'start bagcheck-agent',
    }
  }
}

/** Workloads run as users of their own, and everyone of them asks at the agent's socket. */
async function findClosedDirectory(path: string): Promise<string | undefined> {
  const parent = dirname(path)
  const above = parent === path ? undefined : await findClosedDirectory(parent)
  if (above !== undefined) return above
  const { mode } = await stat(path)
  return (mode & 0o001) === 0 ? path : undefined
}

async function examineBroker(values: Parameters<typeof examineHost>[0]): Promise<Finding> {
  const what = 'broker'
  if (values.broker === undefined && values.admin === undefined)
    return { state: 'note', what, seen: 'not named', remedy: 'give --broker URL or --admin SOCKET' }
  try {
    const { ready, checks } = await (await openBroker(values)).readiness()
    if (ready) return { state: 'ok', what, seen: 'ready' }
    const failed = checks.filter(({ ok }) => !ok).map(({ name, detail }) => `${name}: ${detail}`)
    const remedy = "docs/errors.md says what to do; the broker's log says more"
    return { state: 'missing', what, seen: ['not ready', ...failed].join('; '), remedy }
  } catch (error) {
    return {
      state: 'missing',
      what,
      seen: (error as Error).message,
      remedy: 'start bagcheck-broker, or name another address',
    }
  }
}
