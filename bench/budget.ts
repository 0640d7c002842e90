// The budgets of the design: each benchmark says how what it measured compares.

/** A figure that the design sets. */
export interface Budget {
  readonly what: string
  readonly limit: number
  readonly unit: string
  /** True where more is better. */
  readonly atLeast?: boolean
}

/** True with BAGCHECK_BENCH_SHORT=1: every benchmark runs once, to see that it works. Its figures mean nothing. */
export const SHORT: boolean = process.env['BAGCHECK_BENCH_SHORT'] === '1'

/** `normal` repetitions or seconds, or few of them in a short run. */
export const effort = (normal: number, short: number): number => (SHORT ? short : normal)

/** Prints one line: the budget, the figure, and the figure as a ratio to the budget. */
export function printBudget({ what, limit, unit, atLeast = false }: Budget, seen: number): void {
  const sign = atLeast ? '≥' : '≤'
  const met = atLeast ? seen >= limit : seen <= limit
  const outcome = Number.isFinite(seen)
    ? `seen ${format(seen)}, ${(seen / limit).toFixed(2)} × the budget${met ? '' : ': MISSED'}`
    : 'not measured'
  console.log(`budget: ${what} ${sign} ${limit} ${unit}; ${outcome}`)
}

/** Three significant digits, in full. */
export function format(value: number): string {
  if (!Number.isFinite(value)) return 'unknown'
  const magnitude = value === 0 ? 0 : Math.floor(Math.log10(Math.abs(value)))
  return value.toFixed(Math.min(Math.max(2 - magnitude, 0), 6))
}
