// What would make a denied request pass, by reason. Advice for people; policy decides. A new reason has a
// line here, and null where nothing that the denied can do helps.
import type { DenialCode } from '@bagcheck/policy'

const REMEDIES: Readonly<Record<DenialCode, string | null>> = {
  POLICY_NOT_IN_FORCE: 'sign and publish the next policy version, or wait for notBefore',
  UNIT_NONE: 'start the service with bagcheck exec, as a systemd unit or in a container',
  ROLE_UNKNOWN: 'name the unit in a role of the policy',
  ROLE_AMBIGUOUS: 'make the units of the roles differ',
  AUDIENCE_NOT_ALLOWED: 'add the audience to the role',
  PROFILE_MISMATCH: 'ask for the profile that the audience has in the policy',
  TOKEN_TYPE_MISMATCH: 'ask for the type of token that the audience has in the policy',
  NODE_CLASS_NOT_ALLOWED: "add the node's class to the role",
  TIER_TOO_LOW: 'run it on a node with stronger proof',
  HOST_STORE_WRITABLE: 'mount the store read-only (boot.readOnlyNixStore of NixOS)',
  HOST_SYSTEM_NOT_APPROVED:
    'approve and attest the system that the host runs, or switch it to an approved one',
  HOST_PRELOAD: 'remove the preload file of the dynamic linker',
  HOST_CLOCK: 'run a time service on the host',
  HOST_LOCKDOWN: 'boot with lockdown=integrity',
  HOST_CORE_PATTERN: 'set kernel.core_pattern to a file name',
  HOST_USERFAULTFD: 'set vm.unprivileged_userfaultfd to 0',
  HOST_BINFMT_MISC: 'remove the format, or name it under binfmtMisc',
  HOST_CMDLINE: 'boot with an approved command line, or name its digest under cmdlines',
  HOST_MODULES: 'unload what is foreign, or name the digest under modules',
  HOST_MODULES_LOADABLE: 'set kernel.modules_disabled to 1 once the host has booted',
  HOST_KEXEC: 'set kernel.kexec_load_disabled to 1',
  HOST_PTRACE_SCOPE: 'raise kernel.yama.ptrace_scope',
  HOST_IO_URING: 'raise kernel.io_uring_disabled',
  HOST_MEMFD_NOEXEC: 'raise vm.memfd_noexec',
  HOST_BPF: 'raise kernel.unprivileged_bpf_disabled',
  HOST_PERF_EVENT: 'raise kernel.perf_event_paranoid',
  HOST_ASLR: 'set kernel.randomize_va_space to 2',
  CALLER_NOT_IN_UNIT: 'let a process of the unit itself ask',
  NEW_PRIVILEGES_POSSIBLE: 'start the unit with no-new-privs, as bagcheck exec does',
  CAPABILITY_NOT_ALLOWED: 'drop the capability, or allow it in the role',
  BOUNDING_SET:
    'start the unit with an empty bounding set, as bagcheck exec does, or name boundingSet',
  SECCOMP_MISSING: 'start the unit with a seccomp filter (SystemCallFilter= of systemd)',
  TRACED: 'detach the tracer',
  NAMESPACE_NOT_ALLOWED:
    'run the unit in the namespaces of the host, or name the kind under allow.namespaces',
  NAMESPACE_DIFFERS: 'end the process that was put into the unit from elsewhere',
  USER_NAMESPACE: 'run the unit in the user namespace of the host, or name its mapping in the role',
  ROOT_DIRECTORY: 'run the unit in the root directory of the host',
  STORE_MOUNT: 'run the unit on the store mount of the host',
  MOUNT_BELOW_STORE: 'unmount what lies over the store',
  CONTAINER_STORE: 'bind-mount the store of the host, or allow store: container in the role',
  CONTAINER_NAMESPACES:
    'start the container with its own namespaces, and enter it with the runtime',
  CONTRACT_NOT_FROM_CLOSURE: 'link the unit file of the closure into /etc/systemd/system',
  CONTRACT_OVERRIDDEN: 'remove the drop-in, and restart the unit',
  CONTRACT_CHANGED: 'run systemctl daemon-reload, and restart the unit',
  CONFINEMENT_MISMATCH: 'restart the unit',
  CLOSURE_AMBIGUOUS: 'make the approvals of the closures agree',
  UID_NOT_ALLOWED: "start the unit as the role's uid",
  KEY_REQUIRED: 'let the workload bring a DPoP proof for its key',
  CLOSURE_NOT_APPROVED:
    'deploy an approved closure, or approve this one in the next policy version',
  CLOSURE_REVOKED: 'deploy a closure that is not revoked',
  CLOSURE_EXPIRED: 'deploy a newer closure, or extend notAfter in the next policy version',
  SUCCESSOR_EXPIRED: 'deploy the successor',
  ATTESTATION_MISSING: 'submit the attestation with "bagcheck attest submit"',
  ROOT_MISMATCH: 'approve the root path of this closure in the next policy version',
  SIGNER_NOT_ALLOWED: 'have the closure attested by a signer of the role',
  BUILD_FACT: 'build the closure with the settings that the role demands',
  BUILD_FACT_UNKNOWN: 'attest where the setting can be learnt (see "bagcheck attest --help")',
  CONTENT_MISMATCH: 'restore the store path: nix-store --repair-path PATH',
  STRENGTH_TOO_LOW: 'wait for the next full verification of the closure',
  FULL_CHECK_TOO_OLD: 'let the agent verify the closure in full again',
  FILE_NOT_IN_CLOSURE: 'remove what loads the foreign file, and restart the unit',
  FILE_NOT_STORE_FILE: 'run the file from the store instead of a copy',
  FILE_UNLINKED: 'restart the unit',
  HOST_OBJECT_NOT_IN_SYSTEM:
    'approve the system closure that the file comes from under hosts, and submit its attestation',
  TEXT_MODIFIED: 'restart the unit; find out what altered its memory',
  JIT_NOT_ALLOWED: 'run without JIT, or allow it for this runtime by digest in the policy',
  JIT_NAME_NOT_ALLOWED: 'name the memory in allowNames of the allowance in the policy',
  JIT_REGIONS: 'raise maxRegions of the allowance in the policy',
  JIT_BYTES: 'raise maxBytes of the allowance in the policy',
  MEMFD_EXECUTABLE: 'name the memfd in allowMemfdNames of an allowance for this runtime by digest',
  SHARED_MEMORY_EXECUTABLE: 'restart the unit; find out what runs code in shared memory',
  DESCRIPTOR_NOT_ALLOWED: 'close it, or allow its kind under allow.descriptors of the role',
  STORE_WRITABLE: 'close what can write to the store, and restart the unit',
  PROCESS_MEMORY: 'close the memory file, and restart the unit',
  KERNEL_MEMORY: "close the kernel's memory, and restart the unit",
  FOREIGN_FILE: 'put the file into the closure, or name it under foreignFiles of the role',
  CONTRACT_MISSING: 'start the service with bagcheck exec or as a systemd unit',
  CONTRACT_BROKEN: 'restart the unit: its main process has executed something else',
  ENTRY_MISMATCH: "start the role's entry executable",
  INTERPRETER_WITHOUT_CONTRACT: 'start the interpreter itself with bagcheck exec',
  ARGUMENTS_MISMATCH: 'start the unit with the arguments that the role names',
  SEARCH_PATH_FOREIGN:
    'take the variable out of the environment of the unit, or have it name paths of the closure only',
  SCRIPT_NOT_IN_CLOSURE: 'start the script of the approved closure',
  EVALUATION_FAILED: null,
}

/**
 * What would make a request pass that was denied with `code`, or null where there is nothing to say. Logged
 * decisions also have codes for evidence that did not verify, which no policy denied.
 */
export function remedy(code: string): string | null {
  return Object.hasOwn(REMEDIES, code) ? REMEDIES[code as DenialCode] : null
}
