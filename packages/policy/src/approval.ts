// An approval: that every check of the policy passed for one request. It can be made in this file only,
// by a function that this package does not export and that `evaluate` alone calls; what it allows can be
// taken out of it once.
import type { Sha256, StorePath, Strength } from '@bagcheck/nix'
import type { Profile } from './policy.ts'

/** What was approved. */
export interface ApprovalContent {
  readonly role: string
  /** `spiffe://TRUST-DOMAIN/role/NAME`, the same for every closure of the role. */
  readonly sub: string
  readonly audience: string
  readonly profile: Profile & { readonly name: string }
  readonly root: StorePath
  readonly closureDigest: Sha256
  /** The closure that this one succeeds; null if it stands for itself. */
  readonly successorOf: Sha256 | null
  readonly tier: number
  readonly strength: Strength
  readonly ttlSeconds: number
  readonly policyVersion: number
  readonly policySha256: Sha256
  /** The attestation that was judged: sha256 of its signed statement, and who signed it. */
  readonly attested: AttestedBy
  /** Files of approved systems that the role allows and that were in use, by path. */
  readonly hostObjects: readonly {
    readonly path: string
    readonly sha256: Sha256
    /** Closure digest of the system that it belongs to. */
    readonly system: Sha256
  }[]
  /** The attestations of the systems that were judged: of those objects, and what the host runs. */
  readonly systems: readonly AttestedBy[]
  /** True if executable memory without a file was in use, by an allowance. */
  readonly jit: boolean
}

/** Names an attestation. */
export interface AttestedBy {
  readonly closureDigest: Sha256
  readonly statementDigest: Sha256
  readonly signer: { readonly keyId: string }
}

let create: (content: ApprovalContent) => Approval

/** An allow that was not used yet. Only a cast can forge one, and a cast shows in review. */
export class Approval {
  #content: ApprovalContent | null

  private constructor(content: ApprovalContent) {
    this.#content = content
  }

  static {
    create = (content) => new Approval(content)
  }

  /** Its content, once. @throws {TypeError} it was used before */
  use(): ApprovalContent {
    const content = this.#content
    if (content === null) throw new TypeError('an approval can be used once')
    this.#content = null
    return content
  }
}

/** Makes an approval. For `evaluate`, at the end of all checks, and for nobody else. */
export function approve(content: ApprovalContent): Approval {
  return create(content)
}
