import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { BrokerError } from '../../src/error.ts'
import { counterKey, planBatch, type Context, type Rows } from '../../src/store/plan.ts'
import type { Write } from '../../src/store/writes.ts'
import { attestation, ban, decision, denial, enrolment, policy } from './fixtures.ts'

// Few of each, so that they collide often.
const small = fc.nat(3)
const write: fc.Arbitrary<Write> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc
      .record({ i: fc.nat(), node: small, nonce: small, counter: small, policyVersion: small })
      .map(({ i, node, nonce, counter, policyVersion }) => {
        const names = { node: `node-${node}`, nonce: `nonce-${nonce}`, counter }
        return {
          ...decision(i, { ...names, expect: { policyVersion } }),
          kind: 'decision' as const,
        }
      }),
  },
  small.map((i) => ({ ...denial(i, { node: `node-${i}` }), kind: 'decision' as const })),
  fc.tuple(small, small).map(([i, token]) => ({
    ...enrolment(i, { joinToken: enrolment(token).joinToken }),
    kind: 'enrolment' as const,
  })),
  small.map((version) => ({ ...policy(version), kind: 'policy' as const })),
  small.map((i) => ({ ...ban(`node-${i}`), kind: 'ban' as const })),
  small.map((i) => ({ ...attestation(i), kind: 'attestation' as const })),
)

/** What a database would hold after the rows: the context of the next batch. */
class Tables {
  readonly #rows: Rows[] = []

  run(batch: readonly Write[]): (number | string)[] {
    const { rows, outcomes } = planBatch(batch, this.#context())
    this.#rows.push(rows)
    return outcomes.map((outcome) => (outcome instanceof BrokerError ? outcome.code : outcome))
  }

  all<K extends Exclude<keyof Rows, 'bodies'>>(table: K): Rows[K][number][] {
    return this.#rows.flatMap((rows): Rows[K][number][] => rows[table])
  }

  #context(): Context {
    const decisions = this.all('decisions')
    const bans = new Map(this.all('bans').map(({ id, entry }) => [id, entry]))
    return {
      size: this.all('entries').length,
      policyVersion: this.all('policies').at(-1)?.version ?? null,
      nodes: new Map(
        this.all('nodes').map(({ id, expires_at }) => [
          id,
          { expiresAt: expires_at, bannedEntry: bans.get(id) ?? null },
        ]),
      ),
      nonces: new Set(
        decisions.map(({ nonce }) => nonce).filter((nonce) => typeof nonce === 'string'),
      ),
      counters: new Set(decisions.map((row) => counterKey(row.node_id, row.counter ?? -1))),
      joinTokens: new Set(this.all('joinTokens').map(({ id }) => id)),
      authorities: new Map(
        [...this.all('authorities'), ...this.all('authorityChanges')].map((row) => [
          row.id,
          { ...row },
        ]),
      ),
      attestations: new Map(this.all('attestations').map((row) => [row.assertion, row.entry_idx])),
    }
  }
}

describe('a batch', () => {
  test('decides the same as its writes one by one', () => {
    fc.assert(
      fc.property(fc.array(write, { maxLength: 40 }), fc.nat(), (writes, at) => {
        const [together, split, alone] = [new Tables(), new Tables(), new Tables()]
        const cut = at % (writes.length + 1)
        const expected = writes.flatMap((one) => alone.run([one]))
        expect(together.run(writes)).toEqual(expected)
        expect([...split.run(writes.slice(0, cut)), ...split.run(writes.slice(cut))]).toEqual(
          expected,
        )
        expect(together.all('entries')).toEqual(alone.all('entries'))
        expect(together.all('decisions')).toEqual(alone.all('decisions'))
      }),
    )
  })

  test('keeps what is unique unique, and numbers entries without a gap', () => {
    fc.assert(
      fc.property(fc.array(write, { maxLength: 60 }), (writes) => {
        const tables = new Tables()
        const outcomes = tables.run(writes)
        const unique = (values: unknown[]) => expect(new Set(values).size).toBe(values.length)
        const decisions = tables.all('decisions')
        unique(decisions.map(({ nonce }) => nonce).filter((nonce) => nonce !== null))
        unique(
          decisions
            .filter(({ counter }) => counter !== null)
            .map(({ node_id, counter }) => `${node_id} ${counter}`),
        )
        unique(tables.all('nodes').map(({ id }) => id))
        unique(tables.all('joinTokens').map(({ id }) => id))
        unique(tables.all('bans').map(({ id }) => id))
        expect(tables.all('policies').map(({ version }) => version)).toEqual(
          tables.all('policies').map((_, i) => i + 1),
        )
        expect(tables.all('entries').map(({ idx }) => idx)).toEqual(
          tables.all('entries').map((_, i) => i),
        )
        const indices = outcomes.filter((outcome) => typeof outcome === 'number')
        expect(new Set(indices).size).toBe(tables.all('entries').length)
      }),
    )
  })

  test('never allows under another policy than the installed one, or for a banned node', () => {
    fc.assert(
      fc.property(fc.array(write, { maxLength: 60 }), (writes) => {
        const tables = new Tables()
        const outcomes = tables.run(writes)
        for (const [i, one] of writes.entries()) {
          const index = outcomes[i]
          if (one.kind !== 'decision' || !one.allow || typeof index !== 'number') continue
          const before = tables.all('policies').filter(({ entry_idx }) => entry_idx < index)
          expect(one.expect.policyVersion).toBe(before.at(-1)?.version)
          const banned = tables
            .all('bans')
            .filter(({ entry, id }) => entry < index && id === one.node)
          expect(banned).toEqual([])
        }
      }),
    )
  })
})
