// What the broker itself puts into the log: a statement, signed by its decision key.
import {
  formatEnvelope,
  formatStatement,
  hashedRekordLeaf,
  signEnvelope,
  STATEMENT_TYPE,
  type SigningKey,
  type Statement,
} from '@bagcheck/attest'
import type { Logged } from './store/writes.ts'

const encoder = new TextEncoder()

/**
 * Text as bytes of its own. `Buffer.from` takes small texts from a pool of 64 KiB, and posting one of them
 * to the store's thread copies the whole pool.
 */
export function ownBytes(text: string): Uint8Array {
  return encoder.encode(text)
}

/** Signs a statement and returns leaf and body of its log entry. */
export function signEntry(statement: Omit<Statement, '_type'>, key: SigningKey): Logged {
  const payload = formatStatement({ _type: STATEMENT_TYPE, ...statement })
  const envelope = signEnvelope(payload, [key])
  return {
    leaf: hashedRekordLeaf(envelope, 0, key),
    body: ownBytes(formatEnvelope(envelope)),
  }
}
