import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { run } from './transcript.ts'

test('doctor says that workloads cannot reach a socket in a directory of root alone', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'bagcheck-doctor-'))
  try {
    const socket = join(folder, 'agent.sock')
    writeFileSync(socket, '')
    chmodSync(folder, 0o700)
    const { code, stdout } = await run(['doctor', '--agent', socket, '--json'])
    expect(code).toBe(1)
    expect(JSON.parse(stdout)).toMatchObject({
      findings: expect.arrayContaining([
        expect.objectContaining({
          what: 'agent',
          state: 'missing',
          remedy: `chmod o+x ${folder}`,
        }),
      ]),
    })
  } finally {
    rmSync(folder, { recursive: true })
  }
})
