import { basename, join } from 'node:path'
import { BAGS, buildBags } from '../build.ts'
import type { Chapter } from '../chapter.ts'
import type { AttestedRoot } from '../policy-text.ts'
import type { Scene } from '../scene.ts'
import type { Told } from '../teller.ts'

export const build: Chapter = {
  title: 'Build time: real Nix builds bags, CI attests them',
  steps: [
    {
      id: 'build',
      title: 'Nix builds two services, a hotfix and a next version, sandboxed',
      essential: true,
      play: buildAll,
    },
    {
      id: 'attest',
      title: 'CI attests each closure: manifest, file list, signature',
      essential: true,
      play: attestAll,
    },
  ],
}

async function buildAll(scene: Scene): Promise<Told> {
  scene.bags = await buildBags(scene.places.directory, scene.context.signal)
  return { seen: BAGS.map((bag) => scene.bag(bag)), facts: scene.bags }
}

async function attestAll(scene: Scene): Promise<Told> {
  const { directory, attestations } = scene.places
  const key = join(directory, 'ci.pem')
  await scene.stage.bagcheck('keygen', key)
  const seen: string[] = []
  for (const bag of BAGS) {
    const made = await scene.stage.bagcheck<AttestedRoot & { paths: number; files: number }>(
      ...['attest', scene.bag(bag), '--key', key, '--pure', '-o', attestations],
    )
    scene.attested.set(bag, made)
    const { root, paths, files, closureDigest } = made
    const name = basename(root).slice(33) // without the hash
    seen.push(`${name}: ${paths} paths, ${files} files, closure ${closureDigest.slice(0, 16)}…`)
  }
  return { seen, facts: Object.fromEntries(scene.attested) }
}
