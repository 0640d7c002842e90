// Enrolled nodes in memory. A decision looks a node up here and nowhere else; bans are checked once
// more in the transaction that commits the decision, because another replica may have banned it.
import { createPublicKey, type KeyObject } from 'node:crypto'
import { publicJwkSchema, type PublicJwk } from '@bagcheck/api'
import { jwkThumbprint } from '@bagcheck/attest'
import { BrokerError, quote } from './error.ts'
import type { StoredNode } from './store/record-reads.ts'

/** A node as enrolled. Times are seconds since the epoch. */
export interface Node {
  readonly id: string
  readonly nodeClass: string
  readonly jwk: PublicJwk
  readonly key: KeyObject
  /** RFC 7638. */
  readonly keyThumbprint: string
  /** Log index of the enrolment. */
  readonly enrolledEntry: number
  readonly enrolledAt: number
  readonly expiresAt: number
  readonly ban: { readonly at: number; readonly reason: string } | null
}

/** A node's row, as the store keeps it. */
export type NodeRow = Pick<
  StoredNode,
  'id' | 'nodeClass' | 'jwk' | 'enrolledEntry' | 'enrolledAt' | 'expiresAt'
> & { readonly ban: Node['ban'] }

/** A node from its row. */
export function toNode(row: NodeRow): Node {
  const jwk = publicJwkSchema.parse(row.jwk)
  const key = createPublicKey({ key: jwk, format: 'jwk' })
  const { id, nodeClass, enrolledEntry, enrolledAt, expiresAt, ban } = row
  const keyThumbprint = jwkThumbprint(jwk)
  return { id, nodeClass, jwk, key, keyThumbprint, enrolledEntry, enrolledAt, expiresAt, ban }
}

/** All nodes that this process knows; loads one that another replica enrolled. */
export class NodeBook {
  readonly #nodes = new Map<string, Node>()
  readonly #load: (id: string) => Promise<NodeRow | undefined>

  constructor(rows: readonly NodeRow[], load: (id: string) => Promise<NodeRow | undefined>) {
    this.#load = load
    for (const row of rows) this.put(row)
  }

  /** All that are known here. */
  [Symbol.iterator](): Iterator<Node> {
    return this.#nodes.values()
  }

  /** A ban is for good: no row lifts one that is known. */
  put(row: NodeRow): Node {
    const node = toNode({ ...row, ban: this.#nodes.get(row.id)?.ban ?? row.ban })
    this.#nodes.set(node.id, node)
    return node
  }

  ban(id: string, at: number, reason: string): void {
    const node = this.#nodes.get(id)
    if (node) this.#nodes.set(id, { ...node, ban: { at, reason } })
  }

  /** Takes over what the store says, such as a ban by another replica. */
  async reload(id: string): Promise<void> {
    const row = await this.#load(id)
    if (row) this.put(row)
  }

  async find(id: string): Promise<Node | undefined> {
    const known = this.#nodes.get(id)
    if (known) return known
    const row = await this.#load(id)
    return row && this.put(row)
  }

  /**
   * The node, if it may get tokens.
   * @throws {BrokerError} NODE_UNKNOWN, NODE_BANNED, NODE_EXPIRED
   */
  async admitted(id: string, nowSeconds: number): Promise<Node> {
    const node = await this.find(id)
    if (node === undefined)
      throw new BrokerError('NODE_UNKNOWN', `expected an enrolled node, saw ${quote(id)}`)
    if (node.ban !== null)
      throw new BrokerError('NODE_BANNED', `node ${quote(id)} is banned: ${node.ban.reason}`)
    if (nowSeconds >= node.expiresAt)
      throw new BrokerError('NODE_EXPIRED', `the enrolment of node ${quote(id)} has expired`)
    return node
  }
}
