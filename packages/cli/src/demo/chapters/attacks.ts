import { copyFileSync } from 'node:fs'
import { chmod } from 'node:fs/promises'
import { join } from 'node:path'
import { expectCode, nextDenial, nextToken, notAsTold, sayReasons } from '../answers.ts'
import { findSpareLibrary } from '../build.ts'
import type { Chapter } from '../chapter.ts'
import { publishPolicy, signPolicy } from '../policies.ts'
import type { Scene } from '../scene.ts'
import type { Told } from '../teller.ts'

export const attacks: Chapter = {
  title: 'Attacks',
  steps: [
    {
      id: 'preload',
      title: 'A library preloaded from outside the store: denied',
      play: preload,
    },
    {
      id: 'user',
      title: 'Another user runs the approved program: denied',
      play: runAsAnotherUser,
    },
    {
      id: 'interpreter',
      title: 'The perl service runs its own script: allowed',
      play: runOwnScript,
    },
    {
      id: 'foreign-script',
      title: 'A foreign script in the approved perl: denied',
      play: runForeignScript,
    },
    {
      id: 'jit-denied',
      title: 'Node makes code at run time, which nobody allowed: denied',
      play: makeCodeUnallowed,
    },
    {
      id: 'jit-allowed',
      title: 'Policy version 3 allows it for this very runtime: allowed',
      play: makeCodeAllowed,
    },
  ],
}

async function preload(scene: Scene): Promise<Told> {
  const library = join(scene.places.directory, 'public/libpreloaded.so')
  copyFileSync(await findSpareLibrary(), library)
  await chmod(library, 0o755)
  const service = scene.startOrders('orders', {
    instance: 'preload',
    environment: { LD_PRELOAD: library },
  })
  const { reasons } = await nextDenial(service)
  await service.stop()
  const { message } = expectCode(reasons, 'FILE_NOT_IN_CLOSURE')
  if (!message.includes(library)) throw notAsTold('the denial does not name the library', reasons)
  return { seen: sayReasons(reasons), facts: { reasons } }
}

async function runAsAnotherUser(scene: Scene): Promise<Told> {
  const service = scene.startOrders('orders', { instance: 'user', uid: 61_009 })
  const { reasons } = await nextDenial(service)
  await service.stop()
  expectCode(reasons, 'UID_NOT_ALLOWED')
  return { seen: sayReasons(reasons), facts: { reasons } }
}

async function runOwnScript(scene: Scene): Promise<Told> {
  const service = scene.startReports(join(scene.bag('reports'), 'lib/reports.pl'))
  const token = await nextToken(service)
  await service.stop()
  return { seen: [`decision ${String(token['decision'])}, role reports`], facts: token }
}

async function runForeignScript(scene: Scene): Promise<Told> {
  const script = join(scene.places.directory, 'public/reports.pl')
  copyFileSync(join(scene.bag('reports'), 'lib/reports.pl'), script)
  await chmod(script, 0o644)
  const service = scene.startReports(script)
  const { reasons } = await nextDenial(service)
  await service.stop()
  if (!reasons.some(({ message }) => message.includes(script)))
    throw notAsTold('the denial does not name the script', reasons)
  return { seen: sayReasons(reasons), facts: { reasons } }
}

async function makeCodeUnallowed(scene: Scene): Promise<Told> {
  const service = scene.startOrders('pricing')
  const { reasons } = await nextDenial(service)
  await service.stop()
  expectCode(reasons, 'JIT_NOT_ALLOWED')
  return { seen: sayReasons(reasons), facts: { reasons } }
}

async function makeCodeAllowed(scene: Scene): Promise<Told> {
  await signPolicy(scene, 3)
  const entry = await publishPolicy(scene, 3)
  const service = scene.startOrders('pricing')
  const token = await nextToken(service)
  await service.stop()
  return {
    seen: [
      `policy version 3 is entry ${entry} in the log`,
      `decision ${String(token['decision'])}, role pricing`,
    ],
    facts: token,
  }
}
