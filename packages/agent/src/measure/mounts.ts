// `/proc/PID/mountinfo`:
//   ID PARENT MAJOR:MINOR ROOT MOUNTPOINT OPTIONS [TAG…] - FSTYPE SOURCE SUPEROPTIONS
// Mount points are seen from the process's root; blanks in them are escaped in octal.
// proc_pid_mountinfo(5).
import { AgentError, quote } from '../error.ts'

const MAX_MOUNTS = 20_000

/** One mount. */
export interface Mount {
  readonly id: number
  /** `major:minor`. */
  readonly device: string
  /** Which directory of the file system is mounted. */
  readonly root: string
  readonly mountPoint: string
  readonly fsType: string
  /** True if the mount, or the file system as a whole, takes no writes. */
  readonly readOnly: boolean
}

/** @throws {AgentError} PROC_FORMAT, MEASUREMENT_LIMIT */
export function parseMountinfo(text: string): Mount[] {
  if (text === '') return [] // a root directory from which no mount can be seen
  if (!text.endsWith('\n')) throw malformed(text.slice(-80))
  const lines = text.slice(0, -1).split('\n')
  if (lines.length > MAX_MOUNTS)
    throw new AgentError(
      'MEASUREMENT_LIMIT',
      `expected at most ${MAX_MOUNTS} mounts, saw ${lines.length}`,
    )
  return lines.map((line) => {
    const fields = line.split(' ')
    const dash = fields.indexOf('-', 6)
    const [id, parent, device, root, mountPoint, options] = fields
    const ofAll = fields[dash + 3]
    const fsType = fields[dash + 1]
    const wellFormed =
      dash >= 6 &&
      fields.length === dash + 4 &&
      /^\d+$/.test(id ?? '') &&
      /^\d+$/.test(parent ?? '') &&
      /^\d+:\d+$/.test(device ?? '')
    if (!wellFormed || root === undefined || mountPoint === undefined || fsType === undefined)
      throw malformed(line)
    return {
      id: Number(id),
      device: device as string,
      root: unescape(root),
      mountPoint: unescape(mountPoint),
      fsType,
      readOnly: hasOption(options, 'ro') || hasOption(ofAll, 'ro'),
    }
  })
}

const hasOption = (options: string | undefined, option: string): boolean =>
  options?.split(',').includes(option) === true

/** Mount points strictly below `directory`, in the order of the file. */
export function mountsBelow(mounts: readonly Mount[], directory: string): string[] {
  return mounts.map((mount) => mount.mountPoint).filter((at) => at.startsWith(`${directory}/`))
}

/** The mount of the unified cgroup hierarchy, alone or beside the old ones. */
export function findCgroup2(mounts: readonly Mount[]): Mount | undefined {
  return mounts.find((mount) => mount.fsType === 'cgroup2' && mount.root === '/')
}

/**
 * True for file systems whose answers a user-space program or another host gives: touching a file on one
 * can block for ever, and its bytes can differ from read to read.
 */
export function isForeignFileSystem(fsType: string): boolean {
  return /^(fuse.*|virtiofs|nfs4?|cifs|smb3?|9p|ceph|afs|coda|orangefs|gfs2|ocfs2)$/.test(fsType)
}

/** True for file systems whose files are the kernel's own words and switches, and hold no data of anybody. */
export function isKernelFileSystem(fsType: string): boolean {
  return /^(sysfs|cgroup2?|devpts|securityfs|debugfs|tracefs|configfs|bpf|mqueue|nsfs|pstore|efivarfs|binfmt_misc|selinuxfs|smackfs|fusectl|rpc_pipefs|resctrl|autofs)$/.test(
    fsType,
  )
}

function unescape(field: string): string {
  return field.replaceAll(/\\([0-7]{3})/g, (_match, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  )
}

function malformed(line: string): AgentError {
  return new AgentError('PROC_FORMAT', `expected a line of mountinfo, saw ${quote(line)}`)
}
