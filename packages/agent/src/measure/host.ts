// What evidence says of the host: which system runs, how its kernel is set, where its store lies. Root can flip
// and restore each of these between two looks, and at tier 0 all of it is the agent's word; what it shows are
// hosts that were set up wrongly or changed by somebody else than their owner.
//
// What cannot be read is null: a policy that demands it denies then.
import { createHash } from 'node:crypto'
import { lstatSync, readdirSync, readFileSync, realpathSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import type { HostFacts } from './messages.ts'
import type { Mount } from './mounts.ts'
import type { Namespaces } from './namespaces.ts'
import { isClockSynchronised } from './native.ts'

/** What the measurer knows of its surroundings already. */
export interface Surroundings {
  readonly namespaces: Namespaces
  readonly mounts: readonly Mount[]
  /** The mount that holds the store. */
  readonly storeMount: Mount
}

const MAX_VALUE_CHARACTERS = 256
const MAX_ENTRIES = 64
/** Each linker's own file: upstream's, and that of nixpkgs, which reads no other. */
const PRELOADS = ['/etc/ld.so.preload', '/etc/ld-nix.so.preload'] as const
const SYSCTLS = {
  ptraceScope: 'kernel/yama/ptrace_scope',
  corePattern: 'kernel/core_pattern',
  modulesDisabled: 'kernel/modules_disabled',
  kexecLoadDisabled: 'kernel/kexec_load_disabled',
  ioUringDisabled: 'kernel/io_uring_disabled',
  memfdNoexec: 'vm/memfd_noexec',
  unprivilegedUserfaultfd: 'vm/unprivileged_userfaultfd',
  unprivilegedBpfDisabled: 'kernel/unprivileged_bpf_disabled',
  perfEventParanoid: 'kernel/perf_event_paranoid',
  randomizeVaSpace: 'kernel/randomize_va_space',
} as const

/** The host as it is now. */
export function readHostFacts({
  namespaces,
  mounts,
  storeMount,
}: Surroundings): Omit<HostFacts, 'unitEvents'> {
  return {
    bootId: readBootId(),
    kernel: release(),
    cmdlineSha256: digestOf(read('/proc/cmdline')),
    currentSystem: resolve('/run/current-system'),
    bootedSystem: resolve('/run/booted-system'),
    namespaces,
    store: {
      device: storeMount.device,
      fsType: storeMount.fsType.slice(0, 64),
      readOnly: storeMount.readOnly,
    },
    sysctls: {
      ptraceScope: sysctl('ptraceScope'),
      corePattern: sysctl('corePattern'),
      modulesDisabled: sysctl('modulesDisabled'),
      kexecLoadDisabled: sysctl('kexecLoadDisabled'),
      ioUringDisabled: sysctl('ioUringDisabled'),
      memfdNoexec: sysctl('memfdNoexec'),
      unprivilegedUserfaultfd: sysctl('unprivilegedUserfaultfd'),
      unprivilegedBpfDisabled: sysctl('unprivilegedBpfDisabled'),
      perfEventParanoid: sysctl('perfEventParanoid'),
      randomizeVaSpace: sysctl('randomizeVaSpace'),
    },
    binfmtMisc: readBinfmtMisc(mounts),
    modules: readModules(read('/proc/modules')),
    lockdown: readLockdown(read('/sys/kernel/security/lockdown')),
    clockSynchronised: isClockSynchronised(),
    preloads: PRELOADS.filter((file) => lstatSync(file, { throwIfNoEntry: false }) !== undefined),
  }
}

/** The kernel's id of this boot. */
export function readBootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
}

/** The names of loaded modules, of which their number and one digest are told. */
export function readModules(text: string | null): HostFacts['modules'] {
  if (text === null) return null
  const names = text.split('\n').flatMap((line) => line.split(' ')[0] || [])
  const sorted = names.toSorted((a, b) => (a < b ? -1 : 1)).map((name) => `${name}\n`)
  const sha256 = digestOf(sorted.join(''))
  return sha256 === null ? null : { count: names.length, sha256 }
}

/** The word in brackets: `none [integrity] confidentiality`. */
export function readLockdown(text: string | null): HostFacts['lockdown'] {
  const chosen = /\[(none|integrity|confidentiality)\]/.exec(text ?? '')?.[1]
  return (chosen as HostFacts['lockdown'] | undefined) ?? null
}

/** Formats that the kernel hands to programs of the host's choice; null where that cannot be seen. */
function readBinfmtMisc(mounts: readonly Mount[]): string[] | null {
  // Looked up among the mounts, because asking its usual place may start an automounter.
  const directory = mounts.find(({ fsType }) => fsType === 'binfmt_misc')?.mountPoint
  if (directory === undefined) return null
  const status = read(join(directory, 'status'))
  if (status === null) return null
  if (status.trim() !== 'enabled') return []
  try {
    return readdirSync(directory)
      .filter((name) => name !== 'register' && name !== 'status')
      .filter((name) => read(join(directory, name))?.startsWith('enabled') !== false)
      .map((name) => name.slice(0, MAX_VALUE_CHARACTERS))
      .toSorted()
      .slice(0, MAX_ENTRIES)
  } catch {
    return null
  }
}

function sysctl(name: keyof typeof SYSCTLS): string | null {
  const text = read(`/proc/sys/${SYSCTLS[name]}`)
  return text === null ? null : text.replace(/\n$/, '').slice(0, MAX_VALUE_CHARACTERS)
}

/** Null where there is no such file, or not for us. */
function read(file: string): string | null {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return null
  }
}

function digestOf(text: string | null): HostFacts['cmdlineSha256'] {
  if (text === null) return null
  return createHash('sha256').update(text).digest('hex') as HostFacts['cmdlineSha256']
}

/** Null where the host is no NixOS. */
function resolve(link: string): string | null {
  try {
    return realpathSync(link)
  } catch {
    return null
  }
}
