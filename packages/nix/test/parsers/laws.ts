// What holds for every parser: what it gives for its samples, for each of their prefixes, for each bit
// flipped, for any mixture of its words, and at its limits. It either refuses with a code of its own or gives
// something that prints and reads back to the same; so no text is taken for what it does not say. That none of it
// hangs or ends the process is what running it shows.
import { isDeepStrictEqual } from 'node:util'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { NixError } from '@bagcheck/nix'
import { bytes, text } from './parser.ts'
import type { Parser } from './parser.ts'

const REFUSED = Symbol('refused')

/** What `parser` gives, if it does not refuse as it may. */
async function attempt(parser: Parser, raw: Uint8Array): Promise<unknown> {
  try {
    return await parser.parse(raw)
  } catch (error) {
    if (!(error instanceof NixError) || !parser.codes.test(error.code)) throw error
    return REFUSED
  }
}

/** Gives a value, and checks that it says what `raw` does. */
async function read(parser: Parser, raw: Uint8Array): Promise<unknown> {
  const value = await attempt(parser, raw)
  if (value === REFUSED || parser.print === undefined) return value
  const spellings = await parser.print(value)
  if (parser.lenient !== true) {
    if (!spellings.some((one) => Buffer.compare(one, raw) === 0))
      expect.fail(`${JSON.stringify(text(raw))} is taken for ${JSON.stringify(value)}`)
    return value
  }
  const printed = spellings[0]
  if (printed === undefined) return value
  const again = await parser.parse(printed)
  if (!parser.printsLess && !isDeepStrictEqual(again, value)) expect(again).toEqual(value)
  expect(text((await parser.print(again))[0] ?? bytes('nothing'))).toBe(text(printed))
  return value
}

/** A text of words, or a sample with pieces dropped, put in, or taken from elsewhere. */
function mutants({ samples, words }: Parser): fc.Arbitrary<Uint8Array> {
  const word = fc.constantFrom(...words).map(bytes)
  const piece = fc
    .tuple(fc.constantFrom(...samples), fc.nat(), fc.nat(40))
    .map(([sample, at, length]) => {
      const from = at % sample.length
      return sample.subarray(from, from + length)
    })
  const put = fc.oneof(word, piece, fc.uint8Array({ maxLength: 4 }))
  const edit = fc.record({ at: fc.nat(), drop: fc.nat(12), put })
  const edited = fc
    .tuple(fc.constantFrom(...samples), fc.array(edit, { minLength: 1, maxLength: 4 }))
    .map(([sample, edits]) => {
      let raw = Buffer.from(sample)
      for (const { at, drop, put: more } of edits) {
        const from = at % (raw.length + 1)
        raw = Buffer.concat([raw.subarray(0, from), more, raw.subarray(from + drop)])
      }
      return raw
    })
  const mixed = fc.array(put, { maxLength: 20 }).map((parts) => Buffer.concat(parts))
  return fc.oneof({ weight: 3, arbitrary: edited }, mixed, fc.uint8Array({ maxLength: 80 }))
}

/** Tests of everything that is described. */
export function testParsers(parsers: readonly Parser[]): void {
  for (const parser of parsers)
    describe(parser.form ? `${parser.name} (${parser.form})` : parser.name, () => {
      testParser(parser)
    })
}

function testParser(parser: Parser): void {
  const { samples, isWhole, cutCode, values, print, mayNotNotice, limits = [] } = parser

  test('reads its samples, and refuses what is cut off at any byte or says something of its own', async () => {
    for (const sample of samples) {
      expect(await read(parser, sample)).not.toBe(REFUSED)
      for (let length = 0; length < sample.length; length++) {
        const prefix = sample.subarray(0, length)
        const whole = isWhole?.(text(prefix)) === true
        if (cutCode !== undefined && !whole)
          await expect(async () => parser.parse(prefix)).rejects.toMatchObject({ code: cutCode })
        if (((await read(parser, prefix)) !== REFUSED) !== whole)
          expect.fail(`${JSON.stringify(text(prefix))} is ${whole ? 'refused' : 'read'}`)
      }
    }
  })

  test('with any bit flipped refuses, or reads something else', async () => {
    for (const sample of samples) {
      const good = await parser.parse(sample)
      for (let bit = 0; bit < sample.length * 8; bit++) {
        const raw = Buffer.from(sample)
        raw[bit >> 3] = (raw[bit >> 3] ?? 0) ^ (1 << (bit & 7))
        const value = await read(parser, raw)
        if (!mayNotNotice && isDeepStrictEqual(value, good))
          expect.fail(`${JSON.stringify(text(raw))} is taken for the sample`)
      }
    }
  })

  test('takes any bytes for what they say, or refuses them with a code', async () => {
    await fc.assert(
      fc.asyncProperty(mutants(parser), async (raw) => {
        await read(parser, raw)
      }),
      { numRuns: 1000 },
    )
  })

  if (values !== undefined)
    test('reads any value that it prints', async () => {
      await fc.assert(
        fc.asyncProperty(values, async (value) => {
          for (const spelling of (await print?.(value)) ?? [])
            if (!isDeepStrictEqual(await parser.parse(spelling), value))
              expect(await parser.parse(spelling)).toEqual(value)
        }),
      )
    })

  if (limits.length > 0)
    test.each(limits)(
      'reads $what, and refuses one more with $code',
      async ({ last, first, code }) => {
        const codeOf = async (raw: Uint8Array): Promise<string> => {
          try {
            await parser.parse(raw)
            return 'read'
          } catch (error) {
            return error instanceof NixError ? error.code : String(error)
          }
        }
        expect(await codeOf(last())).not.toBe(code)
        expect(await codeOf(first())).toBe(code)
      },
    )
}
