// With the process ids of the host, its PID 1 is not in our private root and sees another /nix than what is measured
// here: for an agent that is started below, this process stands in for it.
import { execFileSync } from 'node:child_process'

/** Stands in for PID 1 until it is disposed of. Nix can build nothing then: the kernel gives no sandbox a /proc. */
export function standInForPid1(): Disposable {
  const isFirst = process.pid === 1
  if (!isFirst) execFileSync('mount', ['--bind', `/proc/${process.pid}`, '/proc/1'])
  return { [Symbol.dispose]: () => void (isFirst || execFileSync('umount', ['/proc/1'])) }
}
