// A real systemd for tests, booted as in a container: mount, PID, UTS, IPC, network and cgroup namespaces of
// its own, the host's programs, and a D-Bus daemon. It ends with the process that started it, by kill -9 too.
//
// A systemd that boots tidies up: it empties `/tmp`, sets kernel settings, writes to `/var`. None of that may
// reach the host, twice over: of units it can find only those that the test brings (an ordinary service asks
// for `sysinit.target`, which here is an empty one), and of the host it sees only programs and what it is
// told, read-only; kernel settings are read-only, its clock, modules and devices are out of reach, and
// everything else is scratch.
//
// Its cgroups are the kernel's unified hierarchy below BAGCHECK_CGROUP_PARENT, which also works where the
// host mounts that hierarchy beside the old ones. Its PIDs are its own: look at them from inside.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { setTimeout } from 'node:timers/promises'

const START_TIMEOUT_MS = 30_000
const MANAGERS = ['/usr/lib/systemd/systemd', '/lib/systemd/systemd']

/** A running systemd. */
export interface TestSystemd extends AsyncDisposable {
  /** Runs a program inside, as root, and returns its standard output; throws with its standard error. */
  run(command: string, ...args: readonly string[]): string
  /** Writes a file inside, such as a unit or a drop-in below `/etc/systemd/system`. */
  write(path: string, text: string): void
  /** PID of a service's main process, as it is called inside. */
  mainPid(unit: string): number
}

/**
 * Whether tests can boot a systemd here; where they cannot, prints why. Not required with `CI=true`: small
 * images have none, and the agent's parsers are tested without.
 */
export function systemdAvailable(): boolean {
  const reason = findObstacle()
  if (reason === undefined) return true
  console.warn(`tests with a real systemd are skipped: ${reason}`)
  return false
}

function findObstacle(): string | undefined {
  if (process.env['BAGCHECK_PRIVATE_ROOT'] === undefined)
    return 'not in a private root (npm test makes one when it runs as root)'
  if (process.env['BAGCHECK_CGROUP_PARENT'] === undefined) return 'there is no cgroup2 hierarchy'
  if (findManager() === undefined) return 'the package "systemd" is not installed'
  const missing = ['busctl', 'systemctl', 'dbus-daemon', 'unshare', 'nsenter'].find(
    (program) => spawnSync(program, ['--version']).error !== undefined,
  )
  return missing === undefined ? undefined : `${missing} is not installed`
}

const findManager = (): string | undefined =>
  MANAGERS.find((path) => spawnSync(path, ['--version']).error === undefined)

// Two steps, because a cgroup namespace takes its creator's cgroup as its root.
const enter = `set -e
echo 0 > "$2/cgroup.procs"
exec unshare --cgroup sh -c "$4" sh "$@"`

const boot = `set -e
scratch=$1; manager=$3; shift 4
root=$scratch/root
mkdir "$root"
mount -t tmpfs -o mode=755 bagcheck "$root"
for path in /usr /bin /sbin /lib /lib32 /lib64 "$@"; do
  if [ -L "$path" ]; then cp -P "$path" "$root$path"
  elif [ -d "$path" ]; then
    mkdir -p "$root$path"
    mount --rbind "$path" "$root$path"
    mount -o remount,bind,ro "$root$path"
  fi
done
cd "$root"
mkdir -p proc sys run dev tmp var/tmp etc/systemd/system .host
chmod 1777 tmp var/tmp
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=755 dev dev
for device in null zero full random urandom; do
  : > "dev/$device"
  mount --bind "/dev/$device" "dev/$device"
done
for file in passwd group nsswitch.conf ld.so.cache ld.so.conf dbus-1; do
  [ ! -e "/etc/$file" ] || cp -R "/etc/$file" etc/
done
: > etc/machine-id
cp "$scratch"/units/* etc/systemd/system/
pivot_root . .host
umount -l /.host
rmdir /.host
exec env -i container=bagcheck PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  SYSTEMD_UNIT_PATH=/etc/systemd/system:/run/systemd/system SYSTEMD_GENERATOR_PATH=/none \
  setpriv --bounding-set=-sys_time,-sys_module,-sys_boot,-sys_rawio,-mknod \
  "$manager" --system --unit=bagcheck.target --log-target=console --log-level=warning --show-status=no`

const ALONE = '[Unit]\nDefaultDependencies=no\n'
const BASE: Readonly<Record<string, string>> = {
  'bagcheck.target': `${ALONE}Wants=dbus.service\n`,
  // What units depend on unless they say otherwise.
  'sysinit.target': ALONE,
  'basic.target': ALONE,
  'shutdown.target': ALONE,
  'dbus.socket': `${ALONE}[Socket]\nListenStream=/run/dbus/system_bus_socket\n`,
  'dbus.service': `${ALONE}Requires=dbus.socket
After=dbus.socket
[Service]
Type=notify
ExecStart=dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation
`,
}

/**
 * Boots a systemd that knows `units` (name → text) and has started none of them: about a second.
 * `readable` are directories that it sees beside the host's programs.
 */
export async function startSystemd(
  units: Readonly<Record<string, string>>,
  readable: readonly string[] = [],
): Promise<TestSystemd> {
  const manager = findManager()
  const privateRoot = process.env['BAGCHECK_PRIVATE_ROOT']
  const parent = process.env['BAGCHECK_CGROUP_PARENT']
  if (manager === undefined || privateRoot === undefined || parent === undefined)
    throw new Error('systemd cannot be booted')
  await using held = new AsyncDisposableStack()
  // Below what goes with the private root, whatever ends it.
  const scratch = mkdtempSync(join(privateRoot, 'systemd-'))
  held.defer(() => rmSync(scratch, { recursive: true, force: true }))
  mkdirSync(parent, { recursive: true })
  const cgroup = mkdtempSync(join(parent, 'systemd-'))
  chmodSync(cgroup, 0o755) // as a root of cgroups is
  held.defer(() => removeCgroup(cgroup))
  mkdirSync(join(scratch, 'units'))
  for (const [name, text] of Object.entries({ ...BASE, ...units }))
    writeFileSync(join(scratch, 'units', name), text)
  const child = spawn(
    'setpriv',
    [
      ...['--pdeathsig', 'KILL', 'unshare', '--mount', '--pid', '--uts', '--ipc', '--net'],
      ...['--fork', '--kill-child', '--propagation', 'private'],
      ...['sh', '-c', enter, 'sh', scratch, cgroup, manager, boot, ...readable],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  let said = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (said = (said + text).slice(-4000)))
  held.defer(() => end(child))
  const running = await ready(child, () => said)
  const resources = held.move()
  return { ...running, [Symbol.asyncDispose]: () => resources.disposeAsync() }
}

async function ready(
  child: ChildProcess,
  said: () => string,
): Promise<Omit<TestSystemd, keyof AsyncDisposable>> {
  const version = [
    ...['busctl', '--system', 'get-property', 'org.freedesktop.systemd1'],
    ...['/org/freedesktop/systemd1', 'org.freedesktop.systemd1.Manager', 'Version'],
  ]
  const deadline = Date.now() + START_TIMEOUT_MS
  for (;;) {
    const pid = readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim()
    const run = (command: readonly string[], input = '') =>
      spawnSync(
        'nsenter',
        [
          '--target',
          pid,
          '--mount',
          '--pid',
          '--uts',
          '--ipc',
          '--net',
          '--cgroup',
          '--',
          ...command,
        ],
        { encoding: 'utf8', input },
      )
    if (pid !== '' && run(version).status === 0) return commands(run)
    if (child.exitCode !== null || Date.now() > deadline)
      throw new Error(`systemd did not come up: ${said()}`)
    await setTimeout(50)
  }
}

type Run = (
  command: readonly string[],
  input?: string,
) => { status: number | null; stdout: string; stderr: string }

function commands(runInside: Run): Omit<TestSystemd, keyof AsyncDisposable> {
  const run = (command: readonly string[], input?: string): string => {
    const { status, stdout, stderr } = runInside(command, input)
    if (status !== 0) throw new Error(`${command.join(' ')} ended with ${status}: ${stderr}`)
    return stdout
  }
  return {
    run: (...command) => run(command),
    write: (path, text) => {
      run(['mkdir', '-p', dirname(path)])
      run(['sh', '-c', 'cat > "$1"', 'sh', path], text)
    },
    mainPid: (unit) => Number(run(['systemctl', 'show', '--property=MainPID', '--value', unit])),
  }
}

async function end(child: ChildProcess): Promise<void> {
  const gone = new Promise((resolve) => child.once('exit', resolve))
  if (child.exitCode !== null || child.signalCode !== null) return
  child.kill('SIGKILL')
  await gone
}

/** The kernel takes a moment to end all processes of a PID namespace. */
async function removeCgroup(path: string): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      for (const entry of readdirSync(path, { withFileTypes: true }))
        if (entry.isDirectory()) await removeCgroup(join(path, entry.name))
      return rmdirSync(path)
    } catch (error) {
      if (attempt === 100) throw error
      await setTimeout(20)
    }
  }
}
