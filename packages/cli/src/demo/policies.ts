// The versions of the demo's policy, made with the commands that its operators would use.
import { createHash } from 'node:crypto'
import { readFileSync, realpathSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { policyText } from './policy-text.ts'
import type { Scene } from './scene.ts'
import type { Places } from './stage.ts'

function policyFile({ trust }: Places, version: number): string {
  return join(trust, `policy-v${version}/policy.json`)
}

/** Writes, compiles and signs a version; two of three people sign. */
export async function signPolicy(scene: Scene, version: 1 | 2 | 3): Promise<{ sha256: string }> {
  const { places, stage } = scene
  const source = join(places.trust, `policy-v${version}.yaml`)
  const node = realpathSync(join(scene.bag('orders'), 'bin/node'))
  const text = policyText({
    version,
    now: scene.context.now(),
    orders: scene.attestedRoot('orders'),
    hotfix: scene.attestedRoot('hotfix'),
    reports: scene.attestedRoot('reports'),
    runtime: createHash('sha256').update(readFileSync(node)).digest('hex'),
  })
  writeFileSync(source, text)
  const file = policyFile(places, version)
  await stage.bagcheck('policy', 'check', source)
  const compiled = await stage.bagcheck<{ sha256: string }>(
    ...['policy', 'compile', source, '-o', file],
  )
  const previous = version === 1 ? [] : ['--previous', policyFile(places, version - 1)]
  for (const person of ['policy-1', 'policy-2'])
    await stage.bagcheck(
      ...['policy', 'sign', file, '--key', join(places.keys, `${person}.pem`), ...previous],
    )
  return compiled
}

/** Brings a version to the broker; its entry in the log. */
export async function publishPolicy(scene: Scene, version: number): Promise<number> {
  const { logIndex } = await scene.stage.bagcheck<{ logIndex: number }>(
    ...['policy', 'publish', policyFile(scene.places, version), '--broker', scene.issuer],
  )
  return logIndex
}
