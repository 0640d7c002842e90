import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Chapter } from '../chapter.ts'
import { signPolicy } from '../policies.ts'
import type { Scene } from '../scene.ts'
import { INSTALLATION } from '../stage.ts'
import type { Told } from '../teller.ts'

export const approval: Chapter = {
  title: 'Approval: people sign a policy that gates one role',
  steps: [
    {
      id: 'trust',
      title: 'A trust root is made, and policy version 1 signed by 2 of 3 people',
      essential: true,
      play: makeTrust,
    },
  ],
}

async function makeTrust(scene: Scene): Promise<Told> {
  const { directory, keys, trust } = scene.places
  const { pin } = await scene.stage.bagcheck<{ pin: string }>(
    ...['policy', 'init', '--installation', INSTALLATION, '-o', trust],
  )
  scene.pin = pin
  copyFileSync(join(directory, 'ci.pub'), join(keys, 'ci.pub'))
  const { sha256 } = await signPolicy(scene, 1)
  return {
    seen: [`pinned everywhere: sha256:${pin}`, `policy version 1: sha256:${sha256}`],
    facts: { pin, policy: sha256 },
  }
}
