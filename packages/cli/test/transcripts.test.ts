import { readdirSync } from 'node:fs'
import { join, relative } from 'node:path'
import { describe, expect, test } from 'vitest'
import { replay } from './transcript.ts'

const folder = relative(process.cwd(), join(import.meta.dirname, '../testdata'))

describe('transcripts', () => {
  test.each(readdirSync(folder).filter((name) => name.endsWith('.txt')))(
    '%s says what it says',
    async (name) => {
      const { seen, expected } = await replay(join(folder, name))
      expect(seen).toBe(expected)
    },
  )
})
