// What a policy demands of the hosts of a node class, each demand with a code of its own. At tier 0 all of it is
// the agent's word about its own host, so it stops hosts that were set up wrongly, not their owners. What the
// agent could not read is not as demanded.
import type { AttestedBy } from './approval.ts'
import type { DenialCode, Denials } from './denial.ts'
import { show } from './error.ts'
import type { EvaluationContext } from './evaluate.ts'
import type { HostFacts } from './facts.ts'
import { approvedSystems } from './host-objects.ts'
import type { HostDemands } from './policy.ts'
import type { IndexedRole } from './role-index.ts'

/**
 * Adds a reason for every demand that the host does not meet.
 * @returns the attestations of the systems that it was found to run
 */
export function checkHost(
  role: IndexedRole,
  context: Pick<EvaluationContext, 'nodeClass' | 'now' | 'closures' | 'host'>,
  denials: Denials,
): readonly AttestedBy[] {
  const demands = role.hosts.get(context.nodeClass)?.require
  if (!demands) return []
  for (const { code, meets, what } of DEMANDS)
    if (!meets(demands, context.host))
      denials.add(
        code,
        `the host is not as hosts.${context.nodeClass} demands: ${what(context.host)}`,
      )
  if (!demands.approvedSystem) return []
  const running: AttestedBy[] = []
  const systems = approvedSystems(role, context).map(({ attestation }) => attestation)
  const { currentSystem, bootedSystem } = context.host
  for (const system of new Set([currentSystem, bootedSystem])) {
    const found = systems.find(({ root }) => root === system)
    if (found) running.push(found)
    else
      denials.add(
        'HOST_SYSTEM_NOT_APPROVED',
        `the host runs ${show(system ?? 'no system that it can name')}, which is not approved and attested ` +
          `for nodes of class ${context.nodeClass}`,
      )
  }
  return running
}

interface Demand {
  readonly code: DenialCode
  readonly meets: (demands: HostDemands, host: HostFacts) => boolean
  /** What was seen. */
  readonly what: (host: HostFacts) => string
}

type Sysctl = keyof HostFacts['sysctls']

const value = (host: HostFacts, name: Sysctl): string => show(host.sysctls[name] ?? 'unknown')

/** A setting that is at least what is demanded; null demands nothing. */
function atLeast(
  code: DenialCode,
  sysctl: Sysctl,
  demanded: (demands: HostDemands) => number | null,
): Demand {
  return {
    code,
    meets: (demands, { sysctls }) => {
      const least = demanded(demands)
      const seen = sysctls[sysctl]
      return least === null || (seen !== null && /^-?\d+$/.test(seen) && Number(seen) >= least)
    },
    what: (host) => `${sysctl} is ${value(host, sysctl)}`,
  }
}

const orNothing = (demanded: boolean): number | null => (demanded ? 1 : null)
const LOCKDOWN = ['none', 'integrity', 'confidentiality']

const DEMANDS: readonly Demand[] = [
  {
    code: 'HOST_STORE_WRITABLE',
    meets: ({ storeReadOnly }, { store }) => !storeReadOnly || store.readOnly === true,
    what: ({ store }) => `its store (${show(store.fsType)}) is mounted for writing`,
  },
  {
    code: 'HOST_PRELOAD',
    meets: ({ noPreloads }, { preloads }) => !noPreloads || preloads.length === 0,
    what: ({ preloads }) => `${preloads.map(show).join(', ')} loads libraries into every program`,
  },
  {
    code: 'HOST_CLOCK',
    meets: ({ clockSynchronised: demanded }, { clockSynchronised }) =>
      !demanded || clockSynchronised === true,
    what: ({ clockSynchronised }) =>
      clockSynchronised === null
        ? 'of its clock nothing is known'
        : 'its clock is not synchronised',
  },
  {
    code: 'HOST_LOCKDOWN',
    meets: ({ lockdown: demanded }, { lockdown }) =>
      demanded === null ||
      (lockdown !== null && LOCKDOWN.indexOf(lockdown) >= LOCKDOWN.indexOf(demanded)),
    what: ({ lockdown }) => `its kernel's lockdown is ${lockdown ?? 'unknown'}`,
  },
  {
    code: 'HOST_CORE_PATTERN',
    meets: ({ noCorePipe }, { sysctls: { corePattern } }) =>
      !noCorePipe || (corePattern !== null && !corePattern.startsWith('|')),
    what: (host) => `corePattern is ${value(host, 'corePattern')}`,
  },
  {
    code: 'HOST_USERFAULTFD',
    meets: ({ noUnprivilegedUserfaultfd }, { sysctls }) =>
      !noUnprivilegedUserfaultfd || sysctls.unprivilegedUserfaultfd === '0',
    what: (host) => `unprivilegedUserfaultfd is ${value(host, 'unprivilegedUserfaultfd')}`,
  },
  {
    code: 'HOST_BINFMT_MISC',
    meets: ({ binfmtMisc: allowed }, { binfmtMisc }) =>
      allowed === null ||
      (binfmtMisc !== null && binfmtMisc.every((name) => allowed.includes(name))),
    what: ({ binfmtMisc }) =>
      binfmtMisc === null
        ? 'of its binfmt_misc nothing is known'
        : `its kernel hands programs of these formats to others: ${binfmtMisc.map(show).join(', ')}`,
  },
  {
    code: 'HOST_CMDLINE',
    meets: ({ cmdlines }, { cmdlineSha256 }) =>
      cmdlines === null || (cmdlineSha256 !== null && cmdlines.includes(cmdlineSha256)),
    what: ({ cmdlineSha256 }) =>
      `its kernel's command line has digest ${cmdlineSha256 ?? 'unknown'}`,
  },
  {
    code: 'HOST_MODULES',
    meets: ({ modules: allowed }, { modules }) =>
      allowed === null || (modules !== null && allowed.includes(modules.sha256)),
    what: ({ modules }) =>
      modules === null
        ? 'of its modules nothing is known'
        : `its ${modules.count} modules have digest ${modules.sha256}`,
  },
  atLeast('HOST_MODULES_LOADABLE', 'modulesDisabled', (demands) =>
    orNothing(demands.modulesDisabled),
  ),
  atLeast('HOST_KEXEC', 'kexecLoadDisabled', (demands) => orNothing(demands.kexecDisabled)),
  atLeast('HOST_PTRACE_SCOPE', 'ptraceScope', ({ ptraceScope }) => ptraceScope),
  atLeast('HOST_IO_URING', 'ioUringDisabled', ({ ioUringDisabled }) => ioUringDisabled),
  atLeast('HOST_MEMFD_NOEXEC', 'memfdNoexec', ({ memfdNoexec }) => memfdNoexec),
  atLeast(
    'HOST_BPF',
    'unprivilegedBpfDisabled',
    ({ unprivilegedBpfDisabled }) => unprivilegedBpfDisabled,
  ),
  atLeast('HOST_PERF_EVENT', 'perfEventParanoid', ({ perfEventParanoid }) => perfEventParanoid),
  atLeast('HOST_ASLR', 'randomizeVaSpace', ({ randomizeVaSpace }) => randomizeVaSpace),
]
