// Which route a method and a path belong to.
//
//   path     = 1*( "/" segment )
//   segment  = text | "{" name "}"    one segment of a request's path, percent-decoded
//            | "{" name "*}"          the rest of it, likewise; only at the end
//
// No path belongs to two routes: a test says so. HEAD is GET without the answer's body.
import type { Route } from '@bagcheck/api'

/** A route and what stands in the places of its path. */
export interface Match {
  readonly route: Route
  readonly params: Readonly<Record<string, string>>
}

const NONE: Match['params'] = {}

/** Returns a function that finds the route of a request. */
export function createRouter(
  routes: readonly Route[],
): (method: string, path: string) => Match | undefined {
  const fixed = new Map<string, Match>()
  const patterns: { route: Route; expression: RegExp }[] = []
  for (const route of routes) {
    if (route.path.includes('{')) patterns.push({ route, expression: expressionOf(route.path) })
    else fixed.set(`${route.method} ${route.path}`, { route, params: NONE })
  }
  return (asked, path) => {
    const method = asked === 'HEAD' ? 'GET' : asked
    const known = fixed.get(`${method} ${path}`)
    if (known !== undefined) return known
    for (const { route, expression } of patterns) {
      const groups = route.method === method ? expression.exec(path)?.groups : undefined
      if (groups === undefined) continue
      const params = decoded(groups)
      if (params !== undefined) return { route, params }
    }
    return undefined
  }
}

function expressionOf(path: string): RegExp {
  const segments = path.split('/').map((segment) => {
    const [, name, rest] = /^\{([a-z]+)(\*?)\}$/.exec(segment) ?? []
    if (name === undefined) return segment.replaceAll('.', '\\.')
    return rest === '*' ? `(?<${name}>.+)` : `(?<${name}>[^/]+)`
  })
  return new RegExp(`^${segments.join('/')}$`)
}

function decoded(groups: Record<string, string>): Record<string, string> | undefined {
  try {
    const pairs = Object.entries(groups).map(([name, text]) => [name, decodeURIComponent(text)])
    return Object.fromEntries(pairs) as Record<string, string>
  } catch {
    return undefined // not percent-encoding: nothing of ours has such a name
  }
}
