// What runtimes keep of containers, and who could have written it.
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { AgentError } from '../../src/error.ts'
import { followLinks } from '../../src/measure/host-path.ts'
import { readInstance } from '../../src/measure/instance.ts'
import { findOciState } from '../../src/measure/oci-state.ts'
import { whyNotRootOnly } from '../../src/measure/root-only.ts'
import { readUnitFile } from '../../src/measure/unit-files.ts'
import { inPrivateRoot } from '../fixture/private-root.ts'

const RUNC = {
  ...{ id: 'orders-1', init_process_pid: 812, init_process_start: 99_624 },
  created: '2026-11-28T16:06:28.178902107Z',
  config: { labels: ['a=b', 'bundle=/var/lib/orders'], other: 1 },
  cgroup_paths: { '': '/sys/fs/cgroup/pods/orders-1', cpu: '/sys/fs/cgroup/cpu/x' },
}
const CONFIG = {
  process: {
    args: ['/nix/store/x/bin/node', 'a b'],
    user: { uid: 990, gid: 991 },
    noNewPrivileges: true,
    capabilities: { bounding: ['CAP_KILL', 'CAP_CHOWN'] },
  },
  root: { path: 'rootfs', readonly: true },
  mounts: [{ destination: '/nix/store', type: 'bind', source: '/nix/store', options: ['ro'] }],
  annotations: { a: 'b', long: 'x'.repeat(2000), '': 'c', number: 1 },
  linux: { seccomp: { defaultAction: 'SCMP_ACT_ERRNO' } },
}
describe.runIf(inPrivateRoot())('a state directory', () => {
  let directory: string
  const file = (): string => join(directory, 'orders-1', 'state.json')
  // This very process as a container: it lives, and is in that cgroup.
  const write = (changes: object = {}): void => {
    const { startTicks } = readInstance(process.pid)
    const state = {
      ...{ ...RUNC, init_process_pid: process.pid, init_process_start: startTicks },
      config: { labels: [`bundle=${directory}`] },
      ...changes,
    }
    writeFileSync(file(), JSON.stringify(state))
  }
  const find = (cgroup = '/pods/orders-1'): unknown => {
    try {
      return findOciState([directory], '/sys/fs/cgroup', cgroup)
    } catch (error) {
      return (error as AgentError).code
    }
  }
  beforeEach(() => {
    directory = mkdtempSync('/run/bagcheck-oci-')
    mkdirSync(join(directory, 'orders-1'))
    writeFileSync(join(directory, 'config.json'), JSON.stringify(CONFIG))
    write()
  })
  afterEach(() => rmSync(directory, { recursive: true }))

  test('is believed of a process only that is alive, and where it says', () => {
    // The process of this test is in no such cgroup.
    expect(find()).toBeUndefined()
    expect(find('/elsewhere')).toBeUndefined()
  })

  test('names what is open to others on the way to a file', () => {
    expect(whyNotRootOnly(file())).toBeUndefined()
    chmodSync(file(), 0o622)
    expect(whyNotRootOnly(file())).toContain('mode 622')
    chmodSync(file(), 0o600)
    chownSync(join(directory, 'orders-1'), 1000, 0)
    expect(whyNotRootOnly(file())).toContain('user 1000')
    chownSync(join(directory, 'orders-1'), 0, 0)
    chmodSync(directory, 0o777)
    expect(whyNotRootOnly(file())).toContain('mode 777')
    chmodSync(directory, 0o1777) // nobody else replaces what is root's there
    expect(whyNotRootOnly(file())).toBeUndefined()
    expect(whyNotRootOnly(join(directory, 'none'))).toContain('ENOENT')
  })

  test('is looked at where its links lead, too', () => {
    const link = `${directory}-link`
    symlinkSync(join(directory, 'orders-1'), link)
    try {
      expect(whyNotRootOnly(join(link, 'state.json'))).toBeUndefined()
      chmodSync(directory, 0o777)
      expect(whyNotRootOnly(join(link, 'state.json'))).toContain('mode 777')
    } finally {
      rmSync(link)
    }
  })

  test('links of unit files are followed to the end, with the age of the newest', () => {
    const links = ['one', 'two'].map((name) => join(directory, name))
    symlinkSync('two', links[0]!)
    symlinkSync(join(directory, 'orders-1'), links[1]!)
    expect(followLinks(join(links[0]!, 'state.json'))).toBe(file())
    const { fact, changedMs } = readUnitFile(join(links[0]!, 'state.json'))
    expect(fact.file).toBe(file())
    expect(Date.now() - changedMs).toBeLessThan(60_000)
    symlinkSync('round', join(directory, 'round'))
    expect(() => followLinks(join(directory, 'round'))).toThrow(
      expect.objectContaining({ code: 'UNIT_RECORD' }),
    )
  })
})
