import { nixAvailable } from '@bagcheck/testkit'

/** Whether attacks can be staged here: what real Nix needs, and a cgroup to work in. */
export function inArena(): boolean {
  return nixAvailable() && process.env['BAGCHECK_CGROUP_PARENT'] !== undefined
}
