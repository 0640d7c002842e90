import { writeFileSync } from 'node:fs'
import { expectCode, nextDenial, nextToken, notAsTold, sayReasons } from '../answers.ts'
import type { Chapter } from '../chapter.ts'
import { publishPolicy, signPolicy } from '../policies.ts'
import type { Scene } from '../scene.ts'
import type { Told } from '../teller.ts'

export const change: Chapter = {
  title: 'The bag changes',
  steps: [
    {
      id: 'alter',
      title: 'One data file of the closure is altered: the next renewal is denied',
      play: alter,
    },
    {
      id: 'restore',
      title: 'The file is restored: a token is issued again',
      play: restore,
    },
    {
      id: 'unapproved',
      title: 'The next version, attested but not approved: denied',
      play: runUnapproved,
    },
    {
      id: 'successor',
      title: 'The hotfix, approved as successor in policy version 2: both run',
      play: runSuccessor,
    },
  ],
}

async function alter(scene: Scene): Promise<Told> {
  const orders = scene.ordersService
  const { position } = orders
  writeData(scene, '{"currency":"EUR","rounding":"up!!"}')
  const { code, reasons, decision } = await nextDenial(orders, position)
  scene.denial = decision
  expectCode(reasons, 'CONTENT_MISMATCH')
  if (!reasons.some(({ message }) => message.includes(scene.dataFile)))
    throw notAsTold('the denial does not name the file', reasons)
  return { seen: sayReasons(reasons), facts: { code, reasons } }
}

async function restore(scene: Scene): Promise<Told> {
  const orders = scene.ordersService
  const { position } = orders
  writeData(scene, '{"currency":"EUR","rounding":"down"}')
  const token = await nextToken(orders, position)
  if (token['renewed'] === true)
    throw notAsTold('after a denial comes an issue, not a renewal', token)
  return { seen: [`issued again: decision ${String(token['decision'])}`], facts: token }
}

async function runUnapproved(scene: Scene): Promise<Told> {
  const service = scene.startOrders('orders', { bag: 'next', instance: 'next' })
  const { reasons } = await nextDenial(service)
  await service.stop()
  const { nearest } = expectCode(reasons, 'CLOSURE_NOT_APPROVED')
  if (nearest?.root !== scene.bag('orders') || !nearest.firstDifference.includes('orders.mjs'))
    throw notAsTold('the nearest approved closure and the first difference were not named', reasons)
  return { seen: sayReasons(reasons), facts: { reasons } }
}

async function runSuccessor(scene: Scene): Promise<Told> {
  const orders = scene.ordersService
  const { position } = orders
  await signPolicy(scene, 2)
  const entry = await publishPolicy(scene, 2)
  const hotfix = scene.startOrders('orders', { bag: 'hotfix', instance: 'hotfix' })
  const first = await nextToken(hotfix)
  const from = hotfix.since(0).indexOf(first) + 1
  // One renewal each while both run.
  const together = orders.position
  const renewed = await Promise.all([nextToken(hotfix, from), nextToken(orders, together)])
  await hotfix.stop()
  const denials = [...orders.since(position), ...hotfix.since(0)].filter(
    ({ event }) => event === 'denied',
  )
  if (denials.length > 0) throw notAsTold('there was a denial', denials)
  return {
    seen: [
      `policy version 2 is entry ${entry} in the log`,
      'orders-1.0 and orders-1.0.1 got and renewed tokens side by side, without one denial',
    ],
    facts: { first, renewed },
  }
}

/** Writes over the data file of the closure, as root can. */
function writeData({ dataFile }: Scene, text: string): void {
  writeFileSync(dataFile, text, { flag: 'r+' })
}
