// A cgroup of its own for each unit, in the unified hierarchy: it says which processes belong to the
// unit, whatever they do to their parents, and lets us freeze and end all of them at once.
import { mkdir, readdir, readFile, rmdir, stat, writeFile } from 'node:fs/promises'
import { join, relative } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CliError } from '../error.ts'

/** A unit's cgroup. */
export interface UnitCgroup {
  readonly directory: string
  /** Path below the mount of the hierarchy, as in `/proc/PID/cgroup`. */
  readonly path: string
  readonly inode: string
}

/** The mount point of the unified hierarchy, of its own or beside the old ones. */
export async function findCgroupMount(): Promise<string | undefined> {
  const mounts = (await readFile('/proc/self/mounts', 'utf8')).split('\n')
  return mounts.map((line) => line.split(' ')).find((fields) => fields[2] === 'cgroup2')?.[1]
}

/**
 * Makes the cgroup of a unit; an empty one that an earlier run left behind is replaced.
 * @throws {CliError} CGROUP_UNAVAILABLE, UNIT_RUNNING
 */
export async function makeCgroup(parent: string | undefined, unit: string): Promise<UnitCgroup> {
  const mount = await findCgroupMount()
  if (mount === undefined) {
    throw new CliError(
      'CGROUP_UNAVAILABLE',
      'the unified cgroup hierarchy is not mounted; mount it with "mount -t cgroup2 none /sys/fs/cgroup"',
    )
  }
  const directory = join(parent ?? join(mount, 'bagcheck'), unit)
  if (!directory.startsWith(`${mount}/`)) {
    throw new CliError(
      'CGROUP_UNAVAILABLE',
      `${directory} is not below ${mount}, where cgroups are made; mend --cgroup-parent`,
    )
  }
  try {
    await mkdir(join(directory, '..'), { recursive: true })
    await mkdir(directory).catch(async (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EEXIST') throw error
      if (await isPopulated(directory)) {
        throw new CliError(
          'UNIT_RUNNING',
          `unit ${unit} is running; stop it (what a killed bagcheck exec left of it with ` +
            `"echo 1 > ${directory}/cgroup.kill"), or start another instance of it with --instance`,
        )
      }
      await removeTree(directory)
      await mkdir(directory)
    })
  } catch (error) {
    if (error instanceof CliError) throw error
    throw new CliError(
      'CGROUP_UNAVAILABLE',
      `${directory} cannot be made: ${(error as Error).message}; bagcheck exec needs to write below ` +
        `${mount} (or below the directory that --cgroup-parent names)`,
      { cause: error },
    )
  }
  const { ino } = await stat(directory, { bigint: true })
  return { directory, path: `/${relative(mount, directory)}`, inode: ino.toString() }
}

async function isPopulated(directory: string): Promise<boolean> {
  return (await events(directory)).includes('populated 1')
}

const events = (directory: string): Promise<string> =>
  readFile(join(directory, 'cgroup.events'), 'utf8')

/** Stops every process of the cgroup where it is, and returns once all of them stand still. */
export async function freeze({ directory }: UnitCgroup): Promise<void> {
  await writeFile(join(directory, 'cgroup.freeze'), '1')
  for (let attempt = 0; attempt < 2000; attempt++) {
    if ((await events(directory)).includes('frozen 1')) return
    await sleep(1)
  }
  throw new CliError('CGROUP_UNAVAILABLE', `${directory} does not freeze`)
}

/** Lets the processes of a frozen cgroup go on. */
export async function thaw({ directory }: UnitCgroup): Promise<void> {
  await writeFile(join(directory, 'cgroup.freeze'), '0')
}

/** Ends every process of the cgroup and removes it. */
export async function removeCgroup({ directory }: UnitCgroup): Promise<void> {
  await writeFile(join(directory, 'cgroup.kill'), '1').catch(ignoreGone)
  for (let attempt = 0; attempt < 500; attempt++) {
    const left = await isPopulated(directory).catch(() => false)
    if (!left) break
    await sleep(10)
  }
  await removeTree(directory).catch(ignoreGone)
}

/** Removes a cgroup without processes, and those that a unit of root's made in it. */
async function removeTree(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true }))
    if (entry.isDirectory()) await removeTree(join(directory, entry.name))
  await rmdir(directory)
}

function ignoreGone(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error
}
