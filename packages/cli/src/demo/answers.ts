// What a service of the demo was answered, and what of that is not as told.
import { CliError } from '../error.ts'
import type { Actor, ActorEvent } from './actor.ts'

/** Longest wait for a service to be answered. */
export const ANSWER_MS = 20_000

export interface Reason {
  readonly code: string
  readonly message: string
  readonly nearest?: { readonly root: string; readonly firstDifference: string }
}

export interface Denial {
  readonly code: string
  readonly reasons: readonly Reason[]
  readonly decision: string
}

/** The next token since `from`; a denial instead ends the wait. */
export async function nextToken(service: Actor, from = 0): Promise<ActorEvent> {
  const event = await service.next(({ event: kind }) => kind === 'token' || kind === 'denied', {
    from,
    timeoutMs: ANSWER_MS,
  })
  if (event['event'] === 'denied') throw notAsTold(`${service.name} was denied`, event)
  return event
}

/** The next denial since `from`. A renewal that was under way may still bring a token before it. */
export async function nextDenial(service: Actor, from = 0): Promise<Denial> {
  const event = await service.next(({ event: kind }) => kind === 'denied', {
    from,
    timeoutMs: ANSWER_MS,
  })
  return {
    code: String(event['code']),
    reasons: (event['reasons'] ?? []) as readonly Reason[],
    decision: String(event['decision']),
  }
}

/** The reason with that code, which must be there. */
export function expectCode(reasons: readonly Reason[], code: string): Reason {
  const found = reasons.find((reason) => reason.code === code)
  if (found === undefined) throw notAsTold(`it was not denied for ${code}`, reasons)
  return found
}

export function sayReasons(reasons: readonly Reason[]): string[] {
  return reasons.map(({ code, message }) => `${code}: ${message}`)
}

export function notAsTold(message: string, detail: unknown): CliError {
  return new CliError('DEMO_STEP', message, { detail })
}
