import { readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { notAsTold } from '../answers.ts'
import type { Chapter } from '../chapter.ts'
import { TTL_SECONDS } from '../policy-text.ts'
import type { Scene } from '../scene.ts'
import { INSTALLATION } from '../stage.ts'
import type { Told } from '../teller.ts'

export const audit: Chapter = {
  title: 'Audit',
  steps: [
    {
      id: 'explain',
      title: 'Why a process has its token, and why another had none',
      play: explainBoth,
    },
    {
      id: 'log',
      title: 'The whole log is read and its root computed anew',
      play: readLog,
    },
    {
      id: 'evidence',
      title: 'The evidence of one token is exported and verified offline',
      play: verifyEvidence,
    },
    {
      id: 'other-root',
      title: 'The same file against another trust root: refused',
      play: verifyAgainstOther,
    },
  ],
}

async function explainBoth(scene: Scene): Promise<Told> {
  const { unitsDirectory, agentSocket, adminSocket } = scene.places
  const record = readFileSync(join(unitsDirectory, 'orders.json'), 'utf8')
  const { pid } = JSON.parse(record) as { pid: number }
  const options = ['--agent', agentSocket, '--admin', adminSocket]
  const explain = () => scene.context.invoke(['explain', String(pid), ...options], {})
  // The attacks ran under the same unit's name: its newest decision is its own again after a renewal.
  const deadline = Date.now() + TTL_SECONDS * 1000
  let allowed = await explain()
  while (allowed.code === 1 && Date.now() < deadline) {
    await delay(500)
    allowed = await explain()
  }
  const denied = await scene.context.invoke(['explain', scene.denial, ...options], {})
  if (allowed.code !== 0 || denied.code !== 1)
    throw notAsTold('it was not explained', { allowed, denied })
  return { seen: `${allowed.stdout}${denied.stdout}`.trim().split('\n') }
}

async function readLog(scene: Scene): Promise<Told> {
  const args = ['--broker', scene.issuer, '--trust', join(scene.places.trust, 'root.json')]
  const { size } = await scene.stage.bagcheck<{ size: number }>('log', 'verify', ...args)
  return { seen: [`${size} entries give the root that the log signed`], facts: { size } }
}

async function verifyEvidence(scene: Scene): Promise<Told> {
  const file = scene.bundleFile
  await scene.stage.bagcheck('evidence', 'export', scene.decision, '-o', file)
  const said = await scene.context.invoke(
    ['evidence', 'verify', file, '--trust', `sha256:${scene.pin}`],
    {},
  )
  if (said.code !== 0) throw notAsTold('the bundle did not verify', said.stderr)
  return { seen: said.stdout.trim().split('\n'), facts: { file: basename(file) } }
}

async function verifyAgainstOther(scene: Scene): Promise<Told> {
  const other = join(scene.places.directory, 'other')
  await scene.stage.bagcheck('policy', 'init', '--installation', INSTALLATION, '-o', other)
  const answer = await scene.stage.attempt(
    ...['evidence', 'verify', scene.bundleFile, '--trust', join(other, 'root.json')],
  )
  if (answer.code !== 1) throw notAsTold('it was not refused', answer)
  const { code, message } = JSON.parse(answer.stderr) as { code: string; message: string }
  return { seen: [`${code}: ${message}`], facts: { code, message } }
}
