// Containers of real runtimes, measured by a real agent and judged by a real broker: the first process asks
// through the agent's socket, bind-mounted into the container, and is told why it gets no token.
import { execFileSync, spawn } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  copyFileSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout } from 'node:timers/promises'
import {
  bindMount,
  containerConfig,
  containersAvailable,
  nixAvailable,
  openBundles,
  removeHybridCgroups,
  startContainer,
  type Bundles,
  type CgroupLayout,
  type ContainerRuntime,
  type ContainerWishes,
  type TestContainer,
} from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { AUDIENCE, startInstallation, type Installation } from './containers/installation.ts'

const UID = 61_001
const MAPPED_ROOT = 200_000
const MAP = `{ inside: 0, outside: ${MAPPED_ROOT}, count: 65536 }`
const runtimes: readonly [ContainerRuntime, CgroupLayout][] = [
  ['runc', 'unified'],
  ['runc', 'hybrid'],
  ['crun', 'unified'],
]

interface Answer {
  readonly status: number
  readonly codes: readonly string[]
  readonly messages: readonly string[]
}

interface AskingContainer extends TestContainer {
  readonly id: string
  readonly bundle: string
  readonly upper: string
  readonly rootfs: string
  readonly stateFile: string
  /** Pids of everything in its pid namespace. */
  processes(): number[]
  ask(): Promise<Answer>
}

const inPidNamespaceOf = (pid: number): number[] => {
  const namespace = readlinkSync(`/proc/${pid}/ns/pid`)
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((other) => {
      try {
        return readlinkSync(`/proc/${other}/ns/pid`) === namespace
      } catch {
        return false // gone meanwhile
      }
    })
}

async function until(condition: () => boolean): Promise<void> {
  for (const deadline = Date.now() + 30_000; !condition(); await setTimeout(20))
    if (Date.now() > deadline) throw new Error(`waited for ${condition}`)
}

describe.runIf(nixAvailable())('a container', () => {
  let installation: Installation
  let bundles: Bundles
  let stateDirs: string
  beforeAll(async () => {
    bundles = openBundles()
    stateDirs = join(bundles.directory, 'state')
    mkdirSync(stateDirs, { mode: 0o700 })
    installation = await startInstallation({
      expressions: join(import.meta.dirname, 'containers/bags.nix'),
      attribute: 'boxed',
      arguments: (places) => ['--argstr', 'box', JSON.stringify(boxOf(places.agentSocket))],
      roles: () => ({
        orders: { unit: "{ launcher: oci, container: 'orders-*' }", uid: UID },
        watched: {
          unit: "{ launcher: oci, container: 'watched-*' }",
          uid: UID,
          more: ['observe: true'],
        },
        layers: { unit: "{ launcher: oci, container: 'layers-*', store: [container] }", uid: UID },
        boxed: {
          unit: "{ launcher: oci, container: 'boxed-*' }",
          uid: UID,
          more: ["contract: { source: closure, file: 'asker-box-*/config.json' }"],
        },
        mapped: {
          unit: `{ launcher: oci, container: 'mapped-*', userNamespace: { uids: [${MAP}], gids: [${MAP}] } }`,
          uid: MAPPED_ROOT + UID,
        },
      }),
      agent: () => ({ ociStateDirs: [`${stateDirs}/*`], observeIntervalSeconds: 1 }),
    })
  })
  afterAll(async () => {
    await installation?.[Symbol.asyncDispose]()
    bundles?.[Symbol.dispose]()
    removeHybridCgroups(cgroupName())
  })

  /** What the closure says of its container. */
  const boxOf = (agentSocket: string) =>
    containerConfig({
      ...{ args: ['@perl@', '@script@'], uid: UID },
      environment: { AGENT_SOCKET: '/run/bagcheck/agent.sock' },
      mounts: [bindMount('/nix/store'), bindMount(dirname(agentSocket), '/run/bagcheck')],
      linux: { cgroupsPath: `/${cgroupName()}/boxed` },
    })
  let serial = 0
  const unique = (name: string): string => `${name}-${(serial += 1)}`

  /** What runs in the containers: the bag's perl, the store of the host, the agent's socket. */
  const wishes = (): ContainerWishes => ({
    args: [installation.bag.perl, installation.bag.script],
    uid: UID,
    environment: { AGENT_SOCKET: '/run/bagcheck/agent.sock' },
    mounts: [
      bindMount('/nix/store'),
      bindMount(dirname(installation.places.agentSocket), '/run/bagcheck'),
    ],
    linux: { cgroupsPath: `/${cgroupName()}/${unique('cgroup')}` },
  })
  /** The same with a store in its own layers. */
  const layered = (): ContainerWishes => ({
    ...wishes(),
    mounts: [bindMount(dirname(installation.places.agentSocket), '/run/bagcheck')],
  })
  /** A layer that holds the closure, as an image would. */
  const makeLayer = (): string => {
    const layer = join(bundles.directory, unique('layer'))
    mkdirSync(join(layer, 'nix/store'), { recursive: true })
    for (const path of installation.bag.paths) execFileSync('cp', ['-a', path, join(layer, path)])
    return layer
  }
  const cgroupName = (): string => (process.env['BAGCHECK_CGROUP_PARENT'] ?? '').split('/').at(-1)!

  const start = async (
    [runtime, layout]: readonly [ContainerRuntime, CgroupLayout],
    options: {
      id?: string
      wishes?: ContainerWishes
      /** The whole configuration, as text. */
      config?: string
      arguments?: readonly string[]
      layers?: readonly string[]
    } = {},
  ): Promise<AskingContainer> => {
    const id = options.id ?? unique('orders')
    const made = bundles.make(
      id,
      options.config ?? containerConfig(options.wishes ?? wishes()),
      options.layers,
    )
    const container = await startContainer({
      ...{ runtime, layout, id, bundle: made.bundle, stateDir: join(stateDirs, runtime) },
      arguments: options.arguments ?? [],
    })
    const lines = createInterface({ input: container.child.stdout! })[Symbol.asyncIterator]()
    const next = async (): Promise<Record<string, unknown>> =>
      JSON.parse(String((await lines.next()).value)) as Record<string, unknown>
    const up = await next()
    expect(up['event']).toBe('up')
    const stateFile = join(stateDirs, runtime, id, runtime === 'runc' ? 'state.json' : 'status')
    return Object.assign(container, {
      ...{ id, ...made, stateFile },
      processes: () => inPidNamespaceOf(container.pid),
      async ask(): Promise<Answer> {
        container.child.stdin!.write(`${AUDIENCE}\n`)
        const { status, body } = (await next()) as {
          status: number
          body: {
            code?: string
            error_description?: string
            reasons?: { code: string; message: string }[]
          }
        }
        const reasons =
          body.reasons ??
          (body.code === undefined
            ? []
            : [{ code: body.code, message: body.error_description ?? '' }])
        return {
          status,
          codes: [...new Set(reasons.map(({ code }) => code))].toSorted(),
          messages: reasons.map(({ message }) => message),
        }
      },
    })
  }
  /** Mounts a directory or nothing over `target` in a container, with the program that is there: its perl. */
  const mountInto = (pid: number, kind: 'bind' | 'tmpfs', target: string): void => {
    const call = process.arch === 'arm64' ? 40 : 165
    // Perl's syscall() wants texts that it could write to.
    const script = `my ($from, $to) = ("${kind === 'bind' ? '/proc' : 'tmpfs'}", "${target}");
      syscall(${call}, $from, $to, ${kind === 'bind' ? '0, 4096' : '$from, 0'}, 0) == 0 or die "mount: $!"`
    execFileSync(
      'nsenter',
      [`--target=${pid}`, '--mount', '--', installation.bag.perl, '-e', script],
      { env: { LC_ALL: 'C' } },
    )
  }
  const PASS = { status: 200, codes: [], messages: [] }

  describe.for(runtimes.filter(([runtime, layout]) => containersAvailable(runtime, layout)))(
    'of %s with %s cgroups',
    (runtime) => {
      test('that runs an approved closure from the store of the host gets a token', async () => {
        await using container = await start(runtime)
        expect(await container.ask()).toEqual(PASS)
      })

      test('whose root was moved instead of pivoted gets one too', async () => {
        await using container = await start(runtime, { arguments: ['--no-pivot'] })
        expect(await container.ask()).toEqual(PASS)
      })

      test('gets none beside a foreign program of its upper layer', async () => {
        await using container = await start(runtime)
        expect(await container.ask()).toEqual(PASS)
        copyFileSync('/bin/busybox', join(container.upper, 'busybox'))
        const foreign = container.exec('/busybox', 'sleep', '1000')
        await until(() => container.processes().length === 2)
        const { codes, messages } = await container.ask()
        expect(codes).toContain('FILE_NOT_IN_CLOSURE')
        expect(messages.join()).toContain('/busybox')
        await foreign.end()
        expect(await container.ask()).toEqual(PASS)
      })

      test('gets none once something is mounted over its store, or over a file in it', async () => {
        await using container = await start(runtime)
        expect(await container.ask()).toEqual(PASS)
        // By root on the host: a container without capabilities mounts nothing.
        mountInto(container.pid, 'bind', dirname(installation.bag.script))
        expect((await container.ask()).codes).toEqual(['MOUNT_BELOW_STORE'])
        mountInto(container.pid, 'tmpfs', '/nix/store')
        expect((await container.ask()).codes).toContain('CONTAINER_STORE')
      })

      test('that asks for nothing is observed under its id, each of them, and others are not', async () => {
        await using good = await start(runtime, { id: unique('watched') })
        await using bad = await start(runtime, { id: unique('watched') })
        await using other = await start(runtime)
        copyFileSync('/bin/busybox', join(bad.upper, 'busybox'))
        const foreign = bad.exec('/busybox', 'sleep', '1000')
        await until(() => bad.processes().length === 2)
        const observed = async (unit: string): Promise<readonly string[] | undefined> => {
          const args = ['decisions', '--observed', '--limit', '1', '--unit', unit, '--json']
          const { stdout } = await installation.bagcheck(...args)
          const [seen] = (JSON.parse(stdout) as { decisions: { reasons: { code: string }[] }[] })
            .decisions
          return seen?.reasons.map(({ code }) => code)
        }
        const seen = async (unit: string, code?: string): Promise<void> => {
          for (const deadline = Date.now() + 60_000; ; await setTimeout(200)) {
            const found = await observed(unit)
            if (found !== undefined && (code ? found.includes(code) : found.length === 0)) return
            if (Date.now() > deadline) throw new Error(`observed ${unit}: ${found}`)
          }
        }
        await seen(good.id)
        await seen(bad.id, 'FILE_NOT_IN_CLOSURE')
        expect(await observed(other.id)).toBeUndefined()
        await foreign.end()
        // Nothing follows from it: who was observed as wrong is judged anew when it asks.
        expect(await bad.ask()).toEqual(PASS)
      })

      test('of the same image and another id is another unit', async () => {
        await using container = await start(runtime, { id: unique('payments') })
        expect((await container.ask()).codes).toEqual(['ROLE_UNKNOWN'])
      })

      test('is told with who entered it from the host, whatever cgroup that one is in', async () => {
        await using container = await start(runtime)
        expect(await container.ask()).toEqual(PASS)
        const guest = spawn('nsenter', [
          `--target=${container.pid}`,
          '--pid',
          '--',
          'sleep',
          '1000',
        ])
        await until(() => container.processes().length === 2)
        expect((await container.ask()).codes).toEqual(
          expect.arrayContaining(['CONTAINER_NAMESPACES', 'FILE_NOT_IN_CLOSURE', 'ROOT_DIRECTORY']),
        )
        // Not nsenter itself, whose child nobody would wait for.
        for (const pid of container.processes())
          if (pid !== container.pid) process.kill(pid, 'SIGKILL')
        await new Promise((resolve) => guest.once('exit', resolve))
        expect(await container.ask()).toEqual(PASS)
      })

      test('without a pid namespace of its own gets none', async () => {
        const namespaces = ['mount', 'ipc', 'uts', 'network', 'cgroup']
        await using container = await start(runtime, { wishes: { ...wishes(), namespaces } })
        expect((await container.ask()).codes).toEqual(['CONTAINER_NAMESPACES'])
      })

      test('in a user namespace gets one only where policy names its mapping', async () => {
        const mapping = (hostID: number) => [{ containerID: 0, hostID, size: 65_536 }]
        const mapped = (hostID: number): ContainerWishes => ({
          ...wishes(),
          namespaces: ['user', 'pid', 'mount', 'ipc', 'uts', 'network', 'cgroup'],
          linux: { ...wishes().linux, uidMappings: mapping(hostID), gidMappings: mapping(hostID) },
        })
        await using named = await start(runtime, {
          id: unique('mapped'),
          wishes: mapped(MAPPED_ROOT),
        })
        expect(await named.ask()).toEqual(PASS)
        await using other = await start(runtime, { id: unique('mapped'), wishes: mapped(300_000) })
        expect((await other.ask()).codes).toEqual(['UID_NOT_ALLOWED', 'USER_NAMESPACE'])
        await using unnamed = await start(runtime, { wishes: mapped(MAPPED_ROOT) })
        expect((await unnamed.ask()).codes).toEqual(['UID_NOT_ALLOWED', 'USER_NAMESPACE'])
        await using none = await start(runtime, { id: unique('mapped') })
        expect((await none.ask()).codes).toEqual(['UID_NOT_ALLOWED', 'USER_NAMESPACE'])
      })

      test('whose state others can write, or claim, is not believed', async () => {
        await using container = await start(runtime)
        expect(await container.ask()).toEqual(PASS)
        const { stateFile } = container
        chownSync(stateFile, UID, UID)
        expect(await container.ask()).toMatchObject({ status: 403, codes: ['UNIT_RECORD'] })
        chownSync(stateFile, 0, 0)
        expect(await container.ask()).toEqual(PASS)
        chmodSync(dirname(stateFile), 0o777)
        expect(await container.ask()).toMatchObject({ status: 403, codes: ['UNIT_RECORD'] })
        chmodSync(dirname(stateFile), 0o711)
        const forged = join(stateDirs, 'forged', 'orders-forged')
        mkdirSync(forged, { recursive: true })
        const claim = readFileSync(stateFile, 'utf8').replaceAll(container.id, 'orders-forged')
        writeFileSync(join(forged, basename(stateFile)), claim)
        for (const name of ['config.json'])
          copyFileSync(join(container.bundle, name), join(forged, name))
        chownSync(forged, UID, UID)
        expect(await container.ask()).toMatchObject({ status: 403, codes: ['UNIT_RECORD'] })
        rmSync(dirname(forged), { recursive: true })
        expect(await container.ask()).toEqual(PASS)
      })

      test('has no contract any more when the configuration that it was made from is written to', async () => {
        await using container = await start(runtime)
        const config =
          runtime[0] === 'crun'
            ? join(dirname(container.stateFile), 'config.json')
            : join(container.bundle, 'config.json')
        writeFileSync(config, readFileSync(config))
        expect((await container.ask()).codes).toEqual(['CONTRACT_BROKEN'])
      })

      test('that brings its closure in a layer gets a token where policy takes that, if every byte is right', async () => {
        const layers = [makeLayer()]
        await using container = await start(runtime, {
          ...{ id: unique('layers'), wishes: layered(), layers },
        })
        expect(await container.ask()).toEqual(PASS)
        expect(await container.ask()).toEqual(PASS) // by metadata
        // Written through the mount, it goes to the upper layer: a file that no process has mapped.
        const file = join(
          container.rootfs,
          dirname(dirname(installation.bag.script)),
          'share/prices.json',
        )
        const before = readFileSync(file)
        chmodSync(file, 0o644)
        writeFileSync(file, 'altered')
        expect((await container.ask()).codes).toEqual(['CONTENT_MISMATCH'])
        writeFileSync(file, before)
        chmodSync(file, 0o444)
        expect(await container.ask()).toEqual(PASS)
        chownSync(file, UID, UID)
        const { codes, messages } = await container.ask()
        expect(codes).toEqual(['CONTENT_MISMATCH'])
        expect(messages.join()).toContain(`belongs to user ${UID}`)
      })

      test('that brings its closure with another file in it gets none', async () => {
        const layer = makeLayer()
        const script = join(layer, installation.bag.script)
        chmodSync(script, 0o644)
        writeFileSync(script, `${readFileSync(script, 'utf8')}\n`)
        chmodSync(script, 0o444)
        await using container = await start(runtime, {
          ...{ id: unique('layers'), wishes: layered(), layers: [layer] },
        })
        expect((await container.ask()).codes).toEqual(['CONTENT_MISMATCH'])
      })

      test('that brings a library which replaces one of its closure gets none', async () => {
        const layer = makeLayer()
        const library = join(layer, dirname(dirname(installation.bag.perl)), 'lib/libc.so.6')
        const bytes = readFileSync(library)
        chmodSync(library, 0o755)
        writeFileSync(library, Buffer.concat([bytes, Buffer.from('more')]))
        chmodSync(library, 0o555)
        await using container = await start(runtime, {
          ...{ id: unique('layers'), wishes: layered(), layers: [layer] },
        })
        const { codes, messages } = await container.ask()
        expect(codes).toEqual(['CONTENT_MISMATCH'])
        expect(messages.join()).toContain('lib/libc.so.6, mapped by process')
      })

      test('has the store that its role says, whoever brings it', async () => {
        await using own = await start(runtime, { wishes: layered(), layers: [makeLayer()] })
        expect((await own.ask()).codes).toEqual(['CONTAINER_STORE'])
        await using hosts = await start(runtime, { id: unique('layers') })
        expect((await hosts.ask()).codes).toEqual(['CONTAINER_STORE'])
      })

      test('is started from the configuration in its closure, where its role wants that', async () => {
        const stated = readFileSync(join(installation.bag.root, 'config.json'), 'utf8')
        {
          await using container = await start(runtime, { id: unique('boxed'), config: stated })
          expect(await container.ask()).toEqual(PASS)
        }
        // A variable that the policy does not judge by itself.
        const other = JSON.parse(stated) as { process: { env: string[] } }
        other.process.env.push('PERL_HASH_SEED=0')
        await using container = await start(runtime, {
          ...{ id: unique('boxed'), config: JSON.stringify(other) },
        })
        expect((await container.ask()).codes).toEqual(['CONTRACT_NOT_FROM_CLOSURE'])
      })

      test('does not ask by the pids that it knows for those of the host', async () => {
        await using container = await start(runtime)
        const ask = `GET /v1/unit?pid=1 HTTP/1.1\\r\\nHost: agent\\r\\nConnection: close\\r\\n\\r\\n`
        const script = `use IO::Socket::UNIX; my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]); print $s "${ask}"; print <$s>`
        const { agentSocket } = installation.places
        const perl = ['perl', '-e', script, agentSocket]
        const answer = (...command: string[]): string =>
          execFileSync(command[0]!, command.slice(1), {
            encoding: 'utf8',
            env: { ...process.env, LC_ALL: 'C' },
          })
        // Root of the host, once among the container's processes and once not.
        expect(answer(...perl)).toMatch(/^HTTP\/1.1 200/)
        const refused = answer('nsenter', `--target=${container.pid}`, '--pid', '--', ...perl)
        expect(refused).toContain("in the agent's pid namespace")
        expect(refused).toContain('REQUEST_INVALID')
        const { pid } = container
        const unit = answer('perl', '-e', script.replace('pid=1', `pid=${pid}`), agentSocket)
        expect(unit).toContain(`"name":"${container.id}"`)
        expect(unit).toContain(`"pid":${pid}`)
      })

      test('is measured with each program that the runtime starts in it, and with no runtime', async () => {
        await using container = await start(runtime)
        const { perl } = installation.bag
        const children = Array.from({ length: 6 }, () =>
          container.exec(perl, '-e', 'select undef, undef, undef, 0.5'),
        )
        const codes = new Set<string>()
        for (let round = 0; round < 10; round += 1)
          for (const code of (await container.ask()).codes) codes.add(code)
        await Promise.all(children.map(({ ended }) => ended))
        expect([...codes]).toContain('INTERPRETER_WITHOUT_CONTRACT')
        expect([...codes].filter((code) => code.startsWith('FILE_'))).toEqual([])
        expect(await container.ask()).toEqual(PASS)
      })
    },
  )
})
