import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { AUDITED_FILE_BYTES, auditSources, parseStorePath, writeNar } from '@bagcheck/nix'
import { Instantiator } from '../derivation/instantiate.ts'

const tree = parseStorePath(`/nix/store/${'1'.repeat(32)}-source`)
const script = parseStorePath(`/nix/store/${'2'.repeat(32)}-script.sh`)
const gone = parseStorePath(`/nix/store/${'3'.repeat(32)}-gone`)
const secret = `gh${'p_'}${createHash('sha256').update('x').digest('hex').slice(0, 36)}`

describe('the sources of a build', () => {
  let directory: string
  const nix = new Instantiator()
  const tool = nix.add({ name: 'tool', sources: [tree, script] })
  const root = nix.add({ name: 'root', inputs: [tool], sources: [tree, gone, tool.path] })
  const graph = nix.graph(root)
  const audit = () =>
    auditSources(graph, (path) =>
      path === gone ? undefined : writeNar(join(directory, path === tree ? 'tree' : 'script')),
    )

  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-audit-'))
    mkdirSync(join(directory, 'tree/deep/er'), { recursive: true })
    const write = (file: string, text: string): void => writeFileSync(join(directory, file), text)
    write('tree/.env', `TOKEN=${secret}\n`)
    write('tree/empty', '')
    write('tree/deep/er/clone.sh', 'git clone https://alice:hunter22@example.org/x.git\n')
    write('tree/deep/late', `${' '.repeat(AUDITED_FILE_BYTES - 10)}${secret}`)
    write('tree/deep/large', `${secret}\n${' '.repeat(2 * AUDITED_FILE_BYTES)}`)
    write('tree/home', '/home/alice 2026-11-24T10:00:00Z')
    symlinkSync(secret, join(directory, 'tree/link'))
    write('script', `echo ${secret}`)
  })
  afterAll(() => rmSync(directory, { recursive: true }))

  test('are read once each, and what they hold is named by file and never shown', async () => {
    const found = await audit()
    expect(found).toMatchObject({ sources: 3, files: 7, unread: [gone] })
    expect(found.findings.map(({ name, field, seen }) => `${name} ${field}: ${seen}`)).toEqual([
      'tool sources.script.sh: a GitHub token',
      'tool sources.source/.env: a GitHub token',
      'tool sources.source/deep/large: a GitHub token',
      'tool sources.source/deep/er/clone.sh: https://…@example.org/x.git',
    ])
    expect(JSON.stringify(found)).not.toContain(secret)
  })

  test('stop being read when told', async () => {
    const signal = AbortSignal.abort(new Error('enough'))
    await expect(auditSources(graph, () => undefined, signal)).rejects.toThrow('enough')
  })
})
