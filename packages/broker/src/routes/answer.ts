// Forms of answers. Everything is uncacheable unless a route says otherwise.

/** What is sent back. */
export interface Answer {
  readonly status: number
  /** By lower-case names; Content-Length is added when it is sent. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | Uint8Array
}

const BASE = { 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' }

/** A JSON answer. */
export function json(
  value: unknown,
  options: { status?: number; headers?: Record<string, string> } = {},
): Answer {
  return jsonText(JSON.stringify(value), options)
}

/** A JSON answer from text that is JSON already. */
export function jsonText(
  text: string,
  { status = 200, headers }: { status?: number; headers?: Record<string, string> } = {},
): Answer {
  return {
    status,
    headers: { 'content-type': 'application/json', ...BASE, ...headers },
    body: text,
  }
}

/** An answer of another type. */
export function content(
  body: string | Uint8Array,
  contentType: string,
  headers: Record<string, string> = {},
): Answer {
  return { status: 200, headers: { 'content-type': contentType, ...BASE, ...headers }, body }
}

/** Cache-Control of what never changes once it exists. */
export const IMMUTABLE = { 'cache-control': 'public, max-age=31536000, immutable' }
