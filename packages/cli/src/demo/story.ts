// The story of the demo: every part real, in the order in which an operator would meet them, and after
// that the attacks. Each step is also an end-to-end test (test/demo.system.test.ts).
import { copyFileSync, mkdirSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Context } from '../command.ts'
import { startDaemon } from './build.ts'
import type { Chapter } from './chapter.ts'
import { approval } from './chapters/approval.ts'
import { attacks } from './chapters/attacks.ts'
import { audit } from './chapters/audit.ts'
import { build } from './chapters/build.ts'
import { change } from './chapters/change.ts'
import { run } from './chapters/run.ts'
import { Scene } from './scene.ts'
import { makePlaces, Stage } from './stage.ts'
import { StoryEnded, Teller, type StepResult } from './teller.ts'

const CHAPTERS: readonly Chapter[] = [build, approval, run, change, attacks, audit]

/** Every step's id, in order. */
export const STEPS: readonly string[] = CHAPTERS.flatMap(({ steps }) => steps.map(({ id }) => id))

/** Plays the demo and returns what became of each step. Ends all that it started, however it ends. */
export async function playDemo(
  context: Context,
  keepDirectory: string | undefined,
): Promise<readonly StepResult[]> {
  const stage = new Stage(makePlaces(context.env), context)
  const teller = new Teller(context)
  const daemon = await startDaemon(context.signal)
  try {
    const scene = new Scene(context, stage)
    for (const { title, steps } of CHAPTERS) {
      teller.chapter(title)
      for (const step of steps) await teller.step(step, scene)
    }
    if (keepDirectory !== undefined) keep(scene, keepDirectory)
  } catch (error) {
    if (!(error instanceof StoryEnded)) throw error
  } finally {
    context.progress('  … ending what still runs')
    await stage.clear()
    daemon.kill('SIGKILL')
  }
  return teller.results
}

/** Copies what can be looked at after the demo. */
function keep({ bundleFile, places }: Scene, target: string): void {
  const policies = [1, 2, 3].map((version) => join(places.trust, `policy-v${version}.yaml`))
  mkdirSync(target, { recursive: true })
  for (const file of [bundleFile, join(places.trust, 'root.json'), ...policies])
    copyFileSync(file, join(target, basename(file)))
}
