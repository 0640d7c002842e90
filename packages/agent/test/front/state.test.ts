import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { loadNodeKey } from '../../src/front/jws.ts'
import { AgentState, findClosedDirectory } from '../../src/front/state.ts'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'bagcheck-state-'))
})
afterEach(() => rmSync(directory, { recursive: true }))

describe('the state of an agent', () => {
  test('never counts the same number twice, also after a crash', () => {
    const seen = new Set<number>()
    for (let run = 0; run < 3; run += 1) {
      const state = AgentState.open(join(directory, 'state'))
      for (let i = 0; i < 1500; i += 1) seen.add(state.nextCounter())
      // No close: a crash.
    }
    expect(seen.size).toBe(4500)
  })

  test('keeps the key it made, and refuses one that others may read', () => {
    const state = AgentState.open(join(directory, 'state'))
    const key = loadNodeKey(state.keyFile)
    expect(loadNodeKey(state.keyFile).thumbprint).toBe(key.thumbprint)
    chmodSync(state.keyFile, 0o644)
    expect(() => loadNodeKey(state.keyFile)).toThrow(
      expect.objectContaining({ code: 'KEY_FILE_MODE' }),
    )
  })

  test('in a directory that others may enter is refused', () => {
    const path = join(directory, 'state')
    AgentState.open(path)
    chmodSync(path, 0o755)
    expect(() => AgentState.open(path)).toThrow(expect.objectContaining({ code: 'KEY_FILE_MODE' }))
  })

  test.each([
    ['counter.json', '{"reserved":-1}'],
    ['counter.json', '{'],
  ])('with %s holding %j is refused', (file, text) => {
    const path = join(directory, 'state')
    AgentState.open(path)
    writeFileSync(join(path, file), text)
    expect(() => AgentState.open(path)).toThrow(expect.objectContaining({ code: 'STATE_INVALID' }))
  })

  test('remembers the node and the highest policy version', () => {
    const state = AgentState.open(join(directory, 'state'))
    expect(state.readNode()).toBeUndefined()
    expect(state.readPolicyVersion()).toBe(0)
    const node = { node: 'n', nodeClass: 'c', expiresAt: 1, keyThumbprint: 't' }
    state.writeNode(node)
    state.writePolicyVersion(7)
    const again = AgentState.open(join(directory, 'state'))
    expect(again.readNode()).toEqual(node)
    expect(again.readPolicyVersion()).toBe(7)
  })
})

test('a directory on the way to the socket that other users may not enter is found', () => {
  const inner = join(directory, 'bagcheck')
  mkdirSync(inner, { mode: 0o755 })
  expect(findClosedDirectory(inner)).toBe(directory) // as mkdtemp made it: 0700
  chmodSync(directory, 0o711)
  expect(findClosedDirectory(inner)).toBeUndefined()
  chmodSync(inner, 0o700)
  expect(findClosedDirectory(inner)).toBe(inner)
})
