// Why a policy denies: one code and one sentence a reason.
import type { Sha256, StorePath } from '@bagcheck/nix'

/** Every reason for which a policy denies. Codes are API: they are never renamed. */
export const DENIAL_CODES = [
  'POLICY_NOT_IN_FORCE',
  'UNIT_NONE',
  'ROLE_UNKNOWN',
  'ROLE_AMBIGUOUS',
  'AUDIENCE_NOT_ALLOWED',
  'PROFILE_MISMATCH',
  'TOKEN_TYPE_MISMATCH',
  'KEY_REQUIRED',
  'NODE_CLASS_NOT_ALLOWED',
  'TIER_TOO_LOW',
  'HOST_STORE_WRITABLE',
  'HOST_SYSTEM_NOT_APPROVED',
  'HOST_PRELOAD',
  'HOST_CLOCK',
  'HOST_LOCKDOWN',
  'HOST_CORE_PATTERN',
  'HOST_USERFAULTFD',
  'HOST_BINFMT_MISC',
  'HOST_CMDLINE',
  'HOST_MODULES',
  'HOST_MODULES_LOADABLE',
  'HOST_KEXEC',
  'HOST_PTRACE_SCOPE',
  'HOST_IO_URING',
  'HOST_MEMFD_NOEXEC',
  'HOST_BPF',
  'HOST_PERF_EVENT',
  'HOST_ASLR',
  'CLOSURE_NOT_APPROVED',
  'CLOSURE_AMBIGUOUS',
  'CLOSURE_REVOKED',
  'CLOSURE_EXPIRED',
  'SUCCESSOR_EXPIRED',
  'ROOT_MISMATCH',
  'ATTESTATION_MISSING',
  'SIGNER_NOT_ALLOWED',
  'BUILD_FACT',
  'BUILD_FACT_UNKNOWN',
  'CONTENT_MISMATCH',
  'STRENGTH_TOO_LOW',
  'FULL_CHECK_TOO_OLD',
  'CALLER_NOT_IN_UNIT',
  'UID_NOT_ALLOWED',
  'NEW_PRIVILEGES_POSSIBLE',
  'CAPABILITY_NOT_ALLOWED',
  'BOUNDING_SET',
  'SECCOMP_MISSING',
  'TRACED',
  'USER_NAMESPACE',
  'NAMESPACE_NOT_ALLOWED',
  'NAMESPACE_DIFFERS',
  'ROOT_DIRECTORY',
  'STORE_MOUNT',
  'MOUNT_BELOW_STORE',
  'CONTAINER_STORE',
  'CONTAINER_NAMESPACES',
  'FILE_NOT_IN_CLOSURE',
  'FILE_NOT_STORE_FILE',
  'FILE_UNLINKED',
  'HOST_OBJECT_NOT_IN_SYSTEM',
  'TEXT_MODIFIED',
  'JIT_NOT_ALLOWED',
  'JIT_NAME_NOT_ALLOWED',
  'JIT_REGIONS',
  'JIT_BYTES',
  'MEMFD_EXECUTABLE',
  'SHARED_MEMORY_EXECUTABLE',
  'DESCRIPTOR_NOT_ALLOWED',
  'STORE_WRITABLE',
  'PROCESS_MEMORY',
  'KERNEL_MEMORY',
  'FOREIGN_FILE',
  'CONTRACT_MISSING',
  'CONTRACT_BROKEN',
  'CONTRACT_NOT_FROM_CLOSURE',
  'CONTRACT_OVERRIDDEN',
  'CONTRACT_CHANGED',
  'CONFINEMENT_MISMATCH',
  'ENTRY_MISMATCH',
  'ARGUMENTS_MISMATCH',
  'INTERPRETER_WITHOUT_CONTRACT',
  'SEARCH_PATH_FOREIGN',
  'SCRIPT_NOT_IN_CLOSURE',
  'EVALUATION_FAILED',
] as const

export type DenialCode = (typeof DENIAL_CODES)[number]

/** The approved closure that comes nearest to what runs, and one sentence on where they part. */
export interface Nearest {
  readonly root: StorePath
  readonly closureDigest: Sha256
  readonly firstDifference: string
}

/** One reason: a stable code and one sentence that names the thing. */
export interface DenialReason {
  readonly code: DenialCode
  readonly message: string
  readonly nearest?: Nearest
}

/** Reasons of one code that are spelled out; a hostile node can map thousands of foreign files. */
const MAX_SPELLED_OUT = 8

/** Reasons in the order of the checks, each code spelled out a few times and then counted. */
export class Denials {
  readonly #reasons: DenialReason[] = []
  readonly #counts = new Map<DenialCode, number>()

  /** True while nothing speaks against the request. */
  get none(): boolean {
    return this.#reasons.length === 0
  }

  add(code: DenialCode, message: string, nearest?: Nearest): void {
    const count = (this.#counts.get(code) ?? 0) + 1
    this.#counts.set(code, count)
    if (count <= MAX_SPELLED_OUT) this.#reasons.push({ code, message, ...(nearest && { nearest }) })
  }

  /** Adds the reasons of `other` after its own. */
  take(other: Denials): void {
    for (const { code, message, nearest } of other.reasons()) this.add(code, message, nearest)
  }

  reasons(): readonly DenialReason[] {
    return this.#reasons.map((reason, index) => {
      const more = (this.#counts.get(reason.code) ?? 0) - MAX_SPELLED_OUT
      const last = this.#reasons.findLastIndex(({ code }) => code === reason.code)
      if (more <= 0 || index !== last) return reason
      return { ...reason, message: `${reason.message} (and ${more} more like this)` }
    })
  }
}
