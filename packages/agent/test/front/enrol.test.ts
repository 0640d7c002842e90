import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { EnrolRequest, EnrolResponse } from '@bagcheck/api'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { AgentError } from '../../src/error.ts'
import { BrokerProblem } from '../../src/front/broker-client.ts'
import { ensureEnrolled } from '../../src/front/enrol.ts'
import { loadNodeKey } from '../../src/front/jws.ts'
import { AgentState } from '../../src/front/state.ts'
import { decode } from '../fixture/fake-broker.ts'

const ENROLLED = { node: 'node-1', nodeClass: 'demo', expiresAt: 4_000_000_000 }
const refused = (status: number, code: string): BrokerProblem =>
  new BrokerProblem(status, { error: 'invalid_grant', error_description: code, code })

describe('enrolment', () => {
  let directory: string
  let joinFile: string
  let stateDir: string
  // What the broker saw, and what it does next.
  const asked: { joinToken: string; thumbprint: string }[] = []
  let answer: (joinToken: string) => EnrolResponse

  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-enrol-'))
    joinFile = join(directory, 'token')
    stateDir = join(directory, 'state')
    writeFileSync(joinFile, 'first')
    asked.length = 0
    answer = () => ({ ...ENROLLED, logIndex: 1 })
  })
  afterEach(() => rmSync(directory, { recursive: true }))

  /** An agent that starts. */
  const start = async (joinToken: string | null = joinFile) => {
    const state = AgentState.open(stateDir)
    const key = loadNodeKey(state.keyFile)
    const enrol = async ({ joinToken: sent, proof }: EnrolRequest): Promise<EnrolResponse> => {
      const { header } = decode(proof)
      expect(header['jwk']).toEqual(key.jwk)
      asked.push({ joinToken: sent, thumbprint: key.thumbprint })
      return answer(sent)
    }
    const broker = { enrol }
    return ensureEnrolled({ state, key, broker, issuer: 'https://b', joinToken, now: Date.now })
  }

  test('is asked for with key and join token durable, and leaves only the node', async () => {
    answer = () => {
      for (const file of ['node.key', 'join.json'])
        expect(statSync(join(stateDir, file)).mode & 0o777).toBe(0o600)
      return { ...ENROLLED, logIndex: 1 }
    }
    expect(await start()).toMatchObject(ENROLLED)
    expect(existsSync(join(stateDir, 'join.json'))).toBe(false)
    expect(await start(null)).toMatchObject(ENROLLED)
    expect(asked).toHaveLength(1)
  })

  test('whose answer was lost is asked for again alike, though the join token was taken away', async () => {
    answer = () => {
      throw new AgentError('BROKER_UNREACHABLE', 'cut off after the commit')
    }
    await expect(start()).rejects.toMatchObject({ code: 'BROKER_UNREACHABLE' })
    answer = () => ({ ...ENROLLED, logIndex: 1 })
    rmSync(joinFile)
    expect(await start(null)).toMatchObject(ENROLLED)
    expect(asked).toHaveLength(2)
    expect(asked[1]).toEqual(asked[0])
  })

  test('that was done before the join token was dropped is not asked for again', async () => {
    await start()
    writeFileSync(join(stateDir, 'join.json'), 'first')
    expect(await start()).toMatchObject(ENROLLED)
    expect(asked).toHaveLength(1)
    expect(existsSync(join(stateDir, 'join.json'))).toBe(false)
  })

  test.each([
    [400, 'JOIN_TOKEN_EXPIRED'],
    [409, 'JOIN_TOKEN_USED'],
  ])(
    'refused with %d %s is tried with the join token that took its place',
    async (status, code) => {
      answer = (joinToken) => {
        if (joinToken === 'first') throw refused(status, code)
        return { ...ENROLLED, logIndex: 1 }
      }
      await expect(start()).rejects.toMatchObject({ problem: { code } })
      await expect(start()).rejects.toMatchObject({ problem: { code } })
      writeFileSync(joinFile, 'second')
      expect(await start()).toMatchObject(ENROLLED)
      expect(asked.map(({ joinToken }) => joinToken)).toEqual(['first', 'first', 'first', 'second'])
    },
  )

  test('is not tried with another join token while the broker only cannot answer', async () => {
    answer = () => {
      throw refused(503, 'STORE_UNAVAILABLE')
    }
    await expect(start()).rejects.toMatchObject({ status: 503 })
    writeFileSync(joinFile, 'second')
    await expect(start()).rejects.toMatchObject({ status: 503 })
    expect(asked.map(({ joinToken }) => joinToken)).toEqual(['first', 'first'])
  })

  test('without any join token is refused', async () => {
    await expect(start(null)).rejects.toMatchObject({ code: 'NOT_ENROLLED' })
    rmSync(joinFile)
    await expect(start()).rejects.toMatchObject({ code: 'NOT_ENROLLED' })
    expect(asked).toEqual([])
  })
})
