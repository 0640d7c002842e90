// When each node and each role last got a token: what is missing is seen only here. Read from the decisions
// themselves, so that it survives a restart and counts what other replicas issued; each look reads what was
// committed since the one before, by the table's key, and looks are seconds apart however often one asks.
import type { Node } from './nodes.ts'
import type { Successes } from './store/record-reads.ts'

/** How old an answer may be. */
const REFRESH_MS = 5000
/** Decisions that are read back at start for what roles got; nodes are looked up one by one, whatever their age. */
const LOOK_BACK_ENTRIES = 100_000
/** Series of one metric. Of nodes those that are silent longest, because they are what one looks for. */
const MAX_SERIES = 1000
/** Silent nodes are also counted, however many they are. */
const SILENT_SECONDS = [600, 3600, 86_400]

interface Reader {
  readonly head: () => Promise<{ readonly size: number }>
  readonly nodeSuccesses: () => Promise<readonly (readonly [node: string, at: number])[]>
  readonly successesFrom: (index: number) => Promise<Successes>
}

/** Last successes, in seconds since the epoch. */
export class LastSuccess {
  readonly #store: Reader
  readonly #nowMs: () => number
  readonly #nodes = new Map<string, number>()
  /** By role and unit. */
  readonly #roles = new Map<string, { role: string; unit: string; at: number }>()
  #next: number | undefined
  #lookedAtMs = Number.NEGATIVE_INFINITY
  #looking: Promise<void> | undefined

  constructor(store: Reader, nowMs: () => number) {
    this.#store = store
    this.#nowMs = nowMs
  }

  /** Takes in what was committed. @throws {BrokerError} STORE_* */
  async refresh(): Promise<void> {
    if (this.#nowMs() - this.#lookedAtMs < REFRESH_MS) return
    this.#looking ??= this.#look().finally(() => (this.#looking = undefined))
    await this.#looking
  }

  /** Null if it never got one. */
  of(node: string): number | null {
    return this.#nodes.get(node) ?? null
  }

  /** Lines of the exposition, about the nodes that could get tokens. */
  lines(nodes: Iterable<Node>): string[] {
    const now = this.#nowMs() / 1000
    const able = [...nodes].filter(({ ban, expiresAt }) => ban === null && expiresAt > now)
    // Who never got one has been silent since it enrolled.
    const silent = able
      .map((node) => ({ node, since: this.of(node.id) ?? node.enrolledAt }))
      .toSorted((a, b) => a.since - b.since)
    const succeeded = silent.filter(({ node }) => this.of(node.id) !== null).slice(0, MAX_SERIES)
    const roles = [...this.#roles.values()].toSorted((a, b) => a.at - b.at).slice(0, MAX_SERIES)
    const node = 'bagcheck_broker_node_last_success_seconds'
    const role = 'bagcheck_broker_role_last_success_seconds'
    const count = 'bagcheck_broker_nodes_silent'
    return [
      `# HELP ${node} When a node last got a token; of nodes that may, those silent longest`,
      `# TYPE ${node} gauge`,
      ...succeeded.map(
        ({ node: { id, nodeClass }, since }) =>
          `${node}{node="${escape(id)}",class="${escape(nodeClass)}"} ${since}`,
      ),
      `# HELP ${count} Nodes that may get tokens and got none for longer`,
      `# TYPE ${count} gauge`,
      ...SILENT_SECONDS.map(
        (seconds) =>
          `${count}{seconds="${seconds}"} ${silent.filter(({ since }) => now - since > seconds).length}`,
      ),
      `# HELP ${role} When a unit last got a token in a role, on whatever node`,
      `# TYPE ${role} gauge`,
      ...roles.map(
        (one) => `${role}{role="${escape(one.role)}",unit="${escape(one.unit)}"} ${one.at}`,
      ),
    ]
  }

  async #look(): Promise<void> {
    const { size } = await this.#store.head()
    let from = this.#next
    if (from === undefined) {
      for (const [node, at] of await this.#store.nodeSuccesses()) this.#nodes.set(node, at)
      from = Math.max(size - LOOK_BACK_ENTRIES, 0)
    }
    const { nodes, roles } = await this.#store.successesFrom(from)
    for (const [node, at] of nodes) this.#nodes.set(node, Math.max(at, this.#nodes.get(node) ?? 0))
    for (const [role, unit, at] of roles) {
      const key = `${role} ${unit}`
      this.#roles.set(key, { role, unit, at: Math.max(at, this.#roles.get(key)?.at ?? 0) })
    }
    // What was committed between the two reads is read twice, which changes nothing.
    this.#next = size
    this.#lookedAtMs = this.#nowMs()
  }
}

const escape = (text: string): string =>
  text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
