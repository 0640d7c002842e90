// What the configuration's parts are read with.
import { AgentError, quote } from './error.ts'

/** An object with no other keys than `keys`. @throws {AgentError} CONFIG_INVALID */
export function record(
  value: unknown,
  name: string,
  keys: readonly string[],
): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new AgentError('CONFIG_INVALID', `unexpected ${name}: ${quote(value)}`)
  const unknown = Object.keys(value).find((key) => !keys.includes(key))
  if (unknown !== undefined)
    throw new AgentError('CONFIG_INVALID', `unknown key ${quote(unknown)} in ${name}`)
  return value as Record<string, unknown>
}

/** An array of at most `max` members. @throws {AgentError} CONFIG_INVALID */
export function list(value: unknown, name: string, max: number): readonly unknown[] {
  if (Array.isArray(value) && value.length <= max) return value
  throw new AgentError('CONFIG_INVALID', `expected ${name} to be a list of at most ${max}`)
}
