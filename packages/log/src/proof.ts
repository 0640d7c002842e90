// Verification of RFC 9162 §2.1.3.2 and §2.1.4.2, step by step. Everything in the argument comes from
// whoever wants to be believed; a proof has at most one hash per level, checked before any hashing.
import { LogError } from './error.ts'
import { checkHash, nodeHash, sameHash } from './hashing.ts'
import { checkRange, checkSize } from './tree.ts'

/** No tree of at most 2^53 − 1 leaves needs a longer proof (a consistency proof has one hash more). */
export const MAX_PROOF_HASHES = 54

/** Claims that the leaf with `leafHash` is at `index` of the tree with `size` leaves and this `root`. */
export interface InclusionClaim {
  readonly leafHash: Uint8Array
  readonly index: number
  readonly size: number
  readonly root: Uint8Array
  readonly proof: readonly Uint8Array[]
}

/** Claims that the tree of `from` leaves is a prefix of the tree of `to` leaves. */
export interface ConsistencyClaim {
  readonly from: number
  readonly to: number
  readonly fromRoot: Uint8Array
  readonly toRoot: Uint8Array
  readonly proof: readonly Uint8Array[]
}

/**
 * Returns when the claim is proven.
 * @throws {LogError} LOG_PROOF – it is not; LOG_SIZE, LOG_HASH – an argument is malformed
 * @see https://www.rfc-editor.org/rfc/rfc9162#section-2.1.3.2
 */
export function verifyInclusion(claim: InclusionClaim): void {
  const { index, size, proof } = claim
  checkSize(size)
  if (checkSize(index) >= size)
    // step 1
    throw new LogError('LOG_SIZE', `expected an index below ${size}, saw ${index}`)
  checkProof(proof)
  let [fn, sn] = [index, size - 1] // step 2
  let hash = checkHash(claim.leafHash, 'leaf hash') // step 3
  for (const sibling of proof) {
    if (sn === 0) throw tooLong(proof) // step 4.1
    if (fn % 2 === 1 || fn === sn) {
      hash = nodeHash(sibling, hash) // step 4.2
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [fn / 2, half(sn)]
    } else
      hash = nodeHash(hash, sibling) // step 4.3
    ;[fn, sn] = [half(fn), half(sn)]
  }
  if (sn !== 0) throw tooShort(proof) // step 5
  checkRoot(hash, claim.root, size)
}

/**
 * Returns when the claim is proven. `from` = 0 proves nothing and is refused: the caller decides
 * what a first contact means.
 * @throws {LogError} LOG_PROOF – it is not; LOG_SIZE, LOG_HASH – an argument is malformed
 * @see https://www.rfc-editor.org/rfc/rfc9162#section-2.1.4.2
 */
export function verifyConsistency(claim: ConsistencyClaim): void {
  const { from, to, proof } = claim
  checkRange(from, to)
  checkProof(proof)
  checkHash(claim.fromRoot, 'root')
  if (from === to) {
    if (proof.length !== 0) throw tooLong(proof)
    checkRoot(claim.fromRoot, claim.toRoot, to)
    return
  }
  let [fn, sn] = [from - 1, to - 1] // step 3
  while (fn % 2 === 1) [fn, sn] = [half(fn), half(sn)] // step 4
  // Step 2: a `from` that is a power of two is a node of the new tree, and its root is the first hash.
  const path = fn === 0 ? [claim.fromRoot, ...proof] : proof
  const [first, ...rest] = path
  if (first === undefined) throw tooShort(proof) // step 1
  let [oldHash, newHash] = [first, first] // step 5
  for (const sibling of rest) {
    if (sn === 0) throw tooLong(proof) // step 6.1
    if (fn % 2 === 1 || fn === sn) {
      oldHash = nodeHash(sibling, oldHash) // step 6.2
      newHash = nodeHash(sibling, newHash)
      while (fn % 2 === 0 && fn !== 0) [fn, sn] = [fn / 2, half(sn)]
    } else
      newHash = nodeHash(newHash, sibling) // step 6.3
    ;[fn, sn] = [half(fn), half(sn)]
  }
  if (sn !== 0) throw tooShort(proof) // step 7
  checkRoot(oldHash, claim.fromRoot, from)
  checkRoot(newHash, claim.toRoot, to)
}

function checkProof(proof: readonly Uint8Array[]): void {
  if (proof.length > MAX_PROOF_HASHES) throw tooLong(proof)
  for (const hash of proof) checkHash(hash, 'proof hash')
}

function checkRoot(computed: Uint8Array, root: Uint8Array, size: number): void {
  if (sameHash(computed, checkHash(root, 'root'))) return
  const [seen, expected] = [computed, root].map((h) => Buffer.from(h).toString('hex'))
  throw new LogError('LOG_PROOF', `expected root ${expected} at size ${size}, computed ${seen}`)
}

function tooLong(proof: readonly Uint8Array[]): LogError {
  return new LogError('LOG_PROOF', `expected a shorter proof, saw ${proof.length} hashes`)
}

function tooShort(proof: readonly Uint8Array[]): LogError {
  return new LogError('LOG_PROOF', `expected a longer proof, saw ${proof.length} hashes`)
}

function half(value: number): number {
  return Math.floor(value / 2)
}
