// What may be written: six kinds of log entry, each with the rows that belong to it. One write is one
// message to the worker and commits as a whole or not at all.
import { MAX_ENTRY_BYTES } from '@bagcheck/log'
import type { AuthorityAction } from './authority-states.ts'

/** What every entry has. */
export interface Logged {
  /** The leaf's bytes, at most 65,535; its Merkle leaf hash is RFC 9162's. Does not contain the index. */
  readonly leaf: Uint8Array
  /** The signed envelope, kept by its sha256. */
  readonly body: Uint8Array
}

/** A decision as it is looked up later; times in seconds since the epoch. */
export interface DecisionRecord {
  /** The jti of the token, for an allowed one. */
  readonly id: string
  readonly allow: boolean
  readonly node: string
  /** Unique among all decisions; null for a denial that has none of its own. */
  readonly nonce: string | null
  /** Unique for the node; null for a denial that has none of its own. */
  readonly counter: number | null
  readonly role: string | null
  readonly audience: string
  readonly unit: string
  readonly issuedAt: number
  readonly expiresAt: number | null
  /** Why not; null when allowed. */
  readonly code: string | null
}

/** A decision to commit. */
export interface DecisionInput extends DecisionRecord, Logged {
  /** Logged as one of these; an observation allows nothing. */
  readonly entryKind?: 'decision' | 'observation'
  /** What the decision rests on, kept by its sha256. */
  readonly evidence: Uint8Array
  /**
   * The policy it was made under and the authority that is to sign, if one is: an allowing decision commits
   * only while that policy is installed and that authority active, and does not outlive it.
   */
  readonly expect: { readonly policyVersion: number | null; readonly authority?: string | null }
}

/** An attestation to commit. The same envelope again is not a second entry. */
export interface AttestationInput extends Logged {
  /** sha256 of the signed statement. With the signer it says what is attested; a signature does not. */
  readonly statementSha256: string
  readonly closureDigest: string
  readonly root: string
  readonly signerKey: string
  readonly manifest: Uint8Array
  readonly files: Uint8Array
  readonly submittedAt: number
}

/** A policy to install: the first has version 1, each later one the installed version + 1. */
export interface PolicyInput extends Logged {
  readonly version: number
  readonly json: Uint8Array
  readonly installedAt: number
}

/** A node to enrol, with the join token that this uses up. */
export interface EnrolmentInput extends Logged {
  readonly node: {
    readonly id: string
    readonly jwk: Readonly<Record<string, unknown>>
    readonly nodeClass: string
    readonly enrolledAt: number
    readonly expiresAt: number
  }
  readonly joinToken: { readonly id: string; readonly envelope: Uint8Array }
}

/** A node to ban. Banning it again is not a second entry. */
export interface BanInput extends Logged {
  readonly node: string
  readonly reason: string
  readonly bannedAt: number
}

/** A step in the life of an authority. One that was taken already is not a second entry. */
export interface AuthorityInput extends Logged {
  readonly id: string
  readonly authorityKind: string
  readonly action: AuthorityAction
  readonly at: number
  readonly expiresAt: number
  /** Of `activate`: those that sign no longer, if they are active. */
  readonly supersedes: readonly string[]
}

/** One write as the worker gets it. */
export type Write =
  | (DecisionInput & { readonly kind: 'decision' })
  | (AttestationInput & { readonly kind: 'attestation' })
  | (PolicyInput & { readonly kind: 'policy' })
  | (EnrolmentInput & { readonly kind: 'enrolment' })
  | (BanInput & { readonly kind: 'ban' })
  | (AuthorityInput & { readonly kind: 'authority' })

/** Where an entry stands: `index` from 0, in a log of `treeSize` entries whose checkpoint is signed. */
export interface Committed {
  readonly index: number
  readonly treeSize: number
}

const MAX_TEXT = 8_192

/**
 * Refuses what only our own mistake can produce, before it can spoil the transaction that it would
 * share with others: a leaf of a wrong size, numbers no column holds, text that PostgreSQL cannot store.
 * @throws {TypeError}
 */
export function checkWrite(write: Write): void {
  if (write.leaf.length === 0 || write.leaf.length > MAX_ENTRY_BYTES)
    throw new TypeError(`a leaf has 1 to ${MAX_ENTRY_BYTES} bytes, not ${write.leaf.length}`)
  if (write.kind === 'decision' && write.allow && write.entryKind === 'observation')
    throw new TypeError('an observation allows nothing')
  checkFields(write)
}

function checkFields(fields: object): void {
  for (const [name, value] of Object.entries(fields)) {
    if (typeof value === 'number' && !(Number.isSafeInteger(value) && value >= 0))
      throw new TypeError(`${name} must be a non-negative integer, not ${value}`)
    if (typeof value === 'string' && !isStorable(value))
      throw new TypeError(`${name} must be text without NUL of at most ${MAX_TEXT} characters`)
    const plain = typeof value === 'object' && value !== null && !(value instanceof Uint8Array)
    if (plain) checkFields(value)
  }
}

function isStorable(text: string): boolean {
  return text.length <= MAX_TEXT && text.isWellFormed() && !text.includes('\0')
}
