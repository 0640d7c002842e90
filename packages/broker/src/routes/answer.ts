// Forms of answers. Everything is uncacheable unless a route says otherwise.
const BASE = { 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' }

/** A JSON answer. */
export function json(
  value: unknown,
  options: { status?: number; headers?: Record<string, string> } = {},
): Response {
  return jsonText(JSON.stringify(value), options)
}

/** A JSON answer from text that is JSON already. */
export function jsonText(
  text: string,
  { status = 200, headers }: { status?: number; headers?: Record<string, string> } = {},
): Response {
  return new Response(text, {
    status,
    headers: { 'content-type': 'application/json', ...BASE, ...headers },
  })
}

/** An answer of another type. */
export function content(
  body: string | Uint8Array<ArrayBuffer>,
  contentType: string,
  headers: Record<string, string> = {},
): Response {
  return new Response(body, { headers: { 'content-type': contentType, ...BASE, ...headers } })
}

/** Cache-Control of what never changes once it exists. */
export const IMMUTABLE = { 'cache-control': 'public, max-age=31536000, immutable' }
