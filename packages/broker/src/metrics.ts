// Prometheus text format 0.0.4, by hand. Label values come from closed sets (codes, route ids), never
// from requests, so that no client can make series.

const BUCKETS_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5]

/** A counter with one optional label. */
export class Counter {
  readonly #values = new Map<string, number>()

  add(label = '', by = 1): void {
    this.#values.set(label, (this.#values.get(label) ?? 0) + by)
  }

  get(label = ''): number {
    return this.#values.get(label) ?? 0
  }

  entries(): [string, number][] {
    return [...this.#values].toSorted(([a], [b]) => (a < b ? -1 : 1))
  }
}

/** A histogram of seconds with fixed buckets. */
export class Histogram {
  readonly #counts = BUCKETS_SECONDS.map(() => 0)
  #sum = 0
  #count = 0

  observe(seconds: number): void {
    this.#sum += seconds
    this.#count++
    const index = BUCKETS_SECONDS.findIndex((bound) => seconds <= bound)
    if (index !== -1) this.#counts[index]!++
  }

  lines(name: string): string[] {
    let total = 0
    const buckets = BUCKETS_SECONDS.map((bound, i) => {
      total += this.#counts[i]!
      return `${name}_bucket{le="${bound}"} ${total}`
    })
    return [
      ...buckets,
      `${name}_bucket{le="+Inf"} ${this.#count}`,
      `${name}_sum ${this.#sum}`,
      `${name}_count ${this.#count}`,
    ]
  }
}

/** What the broker counts. */
export class Metrics {
  readonly tokensIssued = new Counter()
  readonly decisionsDenied = new Counter()
  readonly observations = new Counter()
  readonly evidenceRefused = new Counter()
  readonly responses = new Counter()
  readonly nodesBanned = new Counter()
  readonly issueSeconds = new Histogram()
  readonly commitSeconds = new Histogram()

  /** The whole exposition; `gauges` and `more` are read at the time of the scrape. */
  text(
    gauges: Readonly<Record<string, { help: string; value: number | null }>>,
    more: readonly string[] = [],
  ): string {
    const lines = [
      ...counterLines('tokens_issued_total', 'Tokens minted', null, this.tokensIssued),
      ...counterLines(
        'decisions_denied_total',
        'Logged denials by their first reason',
        'code',
        this.decisionsDenied,
      ),
      ...counterLines(
        'evidence_refused_total',
        'Evidence refused before its node was known; not logged',
        'code',
        this.evidenceRefused,
      ),
      ...counterLines(
        'observations_total',
        'Logged observations: would_allow, or the first reason against',
        'verdict',
        this.observations,
      ),
      ...counterLines('nodes_banned_total', 'Nodes banned', 'cause', this.nodesBanned),
      ...counterLines('http_responses_total', 'Responses by status', 'status', this.responses),
      ...histogramLines('issue_seconds', 'From request to token', this.issueSeconds),
      ...histogramLines('commit_seconds', 'Until a decision is durable', this.commitSeconds),
    ]
    for (const [name, { help, value }] of Object.entries(gauges)) {
      if (value === null) continue
      const full = `bagcheck_broker_${name}`
      lines.push(`# HELP ${full} ${help}`, `# TYPE ${full} gauge`, `${full} ${value}`)
    }
    lines.push(...more)
    return `${lines.join('\n')}\n`
  }
}

function counterLines(
  name: string,
  help: string,
  label: string | null,
  counter: Counter,
): string[] {
  const full = `bagcheck_broker_${name}`
  const series =
    label === null
      ? [`${full} ${counter.get()}`]
      : counter.entries().map(([value, count]) => `${full}{${label}="${value}"} ${count}`)
  return [`# HELP ${full} ${help}`, `# TYPE ${full} counter`, ...series]
}

function histogramLines(name: string, help: string, histogram: Histogram): string[] {
  const full = `bagcheck_broker_${name}`
  return [`# HELP ${full} ${help}`, `# TYPE ${full} histogram`, ...histogram.lines(full)]
}
