// Runs a command where `/nix` is its own: a private mount namespace whose root is a tmpfs with every
// top-level entry of the host bound into it, except `/nix`, which is a scratch directory, and `/proc`,
// which shows a private PID namespace. The host is not touched: no directory is made at `/`, and when
// the starter dies, by kill -9 too, the kernel ends every process and every mount in it.
// pivot_root and not chroot, because the kernel refuses user namespaces (Nix's sandbox) in a chroot.
import { spawn, type ChildProcess } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { basename, join } from 'node:path'

/** Set inside a private root: the scratch directory that holds its `/nix`. */
export const PRIVATE_ROOT_VARIABLE = 'BAGCHECK_PRIVATE_ROOT'

/** The cgroup below which `bagcheck exec` makes its units. */
export const CGROUP_PARENT_VARIABLE = 'BAGCHECK_CGROUP_PARENT'

const script = `set -e
scratch=$1; shift
here=$(pwd)
root=$scratch/root
mount -t tmpfs -o mode=755 bagcheck "$root"
for entry in /* /.[!.]*; do
  name=\${entry#/}
  case $name in nix|proc) continue;; esac
  if [ -L "$entry" ]; then cp -P "$entry" "$root/$name"
  elif [ -d "$entry" ]; then mkdir "$root/$name"; mount --rbind "$entry" "$root/$name"
  elif [ -f "$entry" ]; then : > "$root/$name"; mount --bind "$entry" "$root/$name"
  fi
done
mkdir "$root/nix" "$root/proc" "$root/.host"
mount --bind "$scratch/nix" "$root/nix"
mount -t proc proc "$root/proc"
cd "$root"
pivot_root . .host
umount -l /.host
rmdir /.host
cd "$here"
exec "$@"`

/**
 * Runs `command` in a private root and resolves to its exit code. A signal ends everything in it at
 * once: what it made lies in the scratch directory, which goes too. Without root privileges, or inside
 * a private root already, runs the command as it is.
 * @param options.pids `host` keeps the host's process ids, which what the kernel tells of processes is about; then
 *   only the command itself is sure to end with us, and what is in its cgroup
 */
export async function enterPrivateRoot(
  command: readonly string[],
  { pids = 'private' }: { readonly pids?: 'private' | 'host' } = {},
): Promise<number> {
  const needed = process.getuid?.() === 0 && process.env[PRIVATE_ROOT_VARIABLE] === undefined
  if (!needed) return run(command, process.env, 'SIGTERM')
  const scratch = mkdtempSync('/var/tmp/bagcheck-')
  mkdirSync(join(scratch, 'root'))
  mkdirSync(join(scratch, 'nix'))
  const cgroupRoot = findCgroup2()
  const cgroup = cgroupRoot === undefined ? '' : join(cgroupRoot, basename(scratch))
  const guardian = startGuardian(scratch, cgroup)
  const enter = [
    ...['setpriv', '--pdeathsig', 'KILL'],
    ...['unshare', '--mount', '--propagation', 'private'],
    ...(pids === 'private' ? ['--pid', '--fork', '--kill-child'] : []),
    ...['sh', '-c', script, 'sh', scratch],
  ]
  const environment = {
    ...process.env,
    [PRIVATE_ROOT_VARIABLE]: scratch,
    ...(cgroup === '' ? {} : { [CGROUP_PARENT_VARIABLE]: cgroup }),
  }
  const code = await run([...enter, ...command], environment, 'SIGKILL')
  const gone = new Promise((resolve) => guardian.once('exit', resolve))
  guardian.stdin?.end()
  await gone
  return code
}

/** The mount point of the unified cgroup hierarchy, of its own or beside the old ones. */
function findCgroup2(): string | undefined {
  const mounts = readFileSync('/proc/self/mounts', 'utf8').split('\n')
  return mounts.map((line) => line.split(' ')).find((fields) => fields[2] === 'cgroup2')?.[1]
}

/** A shell that outlives us, whatever ends us: it waits for our end of a pipe to close, then clears up. */
function startGuardian(scratch: string, cgroup: string): ChildProcess {
  const clear = `cat > /dev/null
[ -z "$2" ] || [ ! -d "$2" ] || echo 1 > "$2/cgroup.kill"
for attempt in 1 2 3 4 5 6 7 8 9 10; do
  rm -rf "$1" 2> /dev/null
  [ -z "$2" ] || [ ! -d "$2" ] || find "$2" -depth -type d -exec rmdir {} + 2> /dev/null
  [ -e "$1" ] || [ -d "$2" ] || exit 0
  sleep 0.2
done`
  return spawn('sh', ['-c', clear, 'sh', scratch, cgroup], {
    detached: true, // ^C on the terminal must not reach it
    stdio: ['pipe', 'ignore', 'ignore'],
  })
}

function run(
  command: readonly string[],
  environment: NodeJS.ProcessEnv,
  onSignal: NodeJS.Signals,
): Promise<number> {
  const [file, ...args] = command
  if (file === undefined) throw new TypeError('a command is needed')
  const child = spawn(file, args, { stdio: 'inherit', env: environment })
  let caught: 'SIGINT' | 'SIGTERM' | 'SIGHUP' | undefined
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      caught = signal
      child.kill(onSignal)
    })
  }
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('exit', (code) => resolve(caught ? 128 + constants.signals[caught] : (code ?? 1)))
  })
}
