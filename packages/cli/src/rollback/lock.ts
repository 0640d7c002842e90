// flock(2), which Node does not have.

// <sys/file.h>
const [LOCK_EX, LOCK_NB] = [2, 4]

/** True if nobody else has what is open as `fd` locked; then it is locked until that is closed. */
export async function tryLock(fd: number): Promise<boolean> {
  const koffi = (await import('koffi')).default // native, and not everywhere
  return koffi.load(null).func('int flock(int, int)')(fd, LOCK_EX | LOCK_NB) === 0
}
