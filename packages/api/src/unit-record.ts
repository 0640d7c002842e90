// The record of a launch: what `bagcheck exec` writes to UNITSDIR/NAME.json (NAME@INSTANCE.json where several
// units have one name) and the agent reads. Types only: the agent carries no schema library, and checks
// every field by hand. Versioned as evidence is; see evidence.ts for the rule.

/** One launch, as seen right after the program was executed. Strings of digits are decimal. */
export interface UnitRecord {
  readonly schema: 'bagcheck.unit/v1'
  readonly name: string
  /** Below the mount of the unified hierarchy, as in `/proc/PID/cgroup`. */
  readonly cgroup: string
  /** A cgroup that was removed and made anew has the path and not the inode. */
  readonly cgroupInode: string
  /** Absolute path of the program, links resolved. */
  readonly executable: string
  /** All arguments after the program's name. */
  readonly arguments: readonly string[]
  readonly uid: number
  readonly gid: number
  readonly noNewPrivs: boolean
  readonly pid: number
  /** Fields 22, 26 and 28 of `/proc/PID/stat`. */
  readonly startTicks: number
  readonly startCode: number
  readonly startStack: number
  /** `major:minor`, the form of `/proc/PID/maps` and mountinfo. */
  readonly executableDevice: string
  readonly executableInode: string
}
