// Facts of an ordinary request: one process with 12 mapped files, everything as policy wants it.
import type { ListedFile } from '@bagcheck/nix'
import type { Facts, MappedFile } from '@bagcheck/policy'
import type { Service } from './closures.ts'
import { AUDIENCE, UID } from './installation.ts'

const PID = 4711
const START_TICKS = 1_000_000

/** What an agent states about a running `service`, checked at `nowSeconds`. */
export function factsOf(service: Service, nowSeconds: number): Facts {
  const { executable, script, libraries, root, closure } = service
  const args = ['--jitless', script.path]
  const none = '0000000000000000'
  return {
    audience: AUDIENCE,
    ttlSeconds: null,
    purpose: 'issue',
    callerPid: PID,
    unit: {
      launcher: 'bagcheck-exec',
      name: service.name,
      cgroup: `/bagcheck/${service.name}`,
      contract: {
        executable: executable.path,
        arguments: args,
        uid: UID,
        gid: UID,
        noNewPrivs: true,
        pid: PID,
        startTicks: START_TICKS,
        intact: true,
      },
    },
    processes: [
      {
        pid: PID,
        startTicks: START_TICKS,
        uids: [UID, UID, UID, UID],
        gids: [UID, UID, UID, UID],
        executable: mapped(executable, 0),
        files: libraries.map((file, index) => mapped(file, index + 1)),
        anonymousExecutable: { regions: 0, bytes: 0 },
        modifiedTextBytes: 0,
        capabilities: {
          inheritable: none,
          permitted: none,
          effective: none,
          bounding: '000001ffffffffff',
          ambient: none,
        },
        noNewPrivs: true,
        seccomp: 2,
        tracerPid: 0,
        hostUserNamespace: true,
        hostRoot: true,
        verifiedStoreMount: true,
        mountsBelowStore: [],
        environmentHints: [],
        argv: ['node', ...args],
      },
    ],
    roots: [
      {
        root,
        closureDigest: closure.manifest.digest,
        strength: 'incremental',
        checkedAt: nowSeconds,
        lastFullAt: nowSeconds,
        mismatch: null,
      },
    ],
  }
}

const mapped = ({ path, sha256 }: ListedFile, index: number): MappedFile => ({
  path,
  sha256,
  device: '8:1',
  inode: `${100_000 + index}`,
  isStoreFile: true,
  unlinked: false,
})
