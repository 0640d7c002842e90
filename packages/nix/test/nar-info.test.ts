import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { formatNarInfo, parseNarInfo, parseStorePath } from '@bagcheck/nix'

const SIGNATURE = `key-1:${Buffer.alloc(64, 1).toString('base64')}`
const HASH32 = '0sg9f58l1jj88w6pdrfdpj5x9b1zrwszk84j81zvby36q9whhhqa'
const text = [
  'StorePath: /nix/store/10s5j3mfdg22k1597x580qrhprnzcjwb-hello-2.12',
  'URL: nar/1nhgq6wcggx0plpy4991h3ginj6hipsdslv4fd4zml1n707j26yq.nar.xz',
  'Compression: xz',
  `FileHash: sha256:${HASH32}`,
  'FileSize: 50088',
  `NarHash: sha256:${HASH32}`,
  'NarSize: 226552',
  'References: 0c0i1lczx1n1qc0y4yf7ykq1nyzrqj2f-glibc-2.36 10s5j3mfdg22k1597x580qrhprnzcjwb-hello-2.12',
  'Deriver: 2rkbgzqzk4gv0bwdhlmrzb4dq7l3f0yh-hello-2.12.drv',
  `Sig: ${SIGNATURE}`,
  `Sig: key-2:${Buffer.alloc(64, 2).toString('base64')}`,
  `CA: fixed:r:sha256:${HASH32}`,
  '',
].join('\n')

const parse = (value: string, options = {}): ReturnType<typeof parseNarInfo> =>
  parseNarInfo(Buffer.from(value, 'latin1'), options)
const code = (value: string): unknown => expect.objectContaining({ code: value })
const without = (key: string): string => text.replace(new RegExp(`^${key}: .*\n`, 'm'), '')
const replace = (key: string, value: string): string =>
  text.replace(new RegExp(`^${key}: .*$`, 'm'), `${key}: ${value}`)

describe('parseNarInfo', () => {
  test('reads what Nix writes, and it prints as it was', () => {
    const info = parse(text)
    expect(info).toMatchObject({
      path: '/nix/store/10s5j3mfdg22k1597x580qrhprnzcjwb-hello-2.12',
      url: 'nar/1nhgq6wcggx0plpy4991h3ginj6hipsdslv4fd4zml1n707j26yq.nar.xz',
      compression: 'xz',
      fileSize: 50_088,
      narSize: 226_552,
      deriver: '/nix/store/2rkbgzqzk4gv0bwdhlmrzb4dq7l3f0yh-hello-2.12.drv',
      ca: `fixed:r:sha256:${HASH32}`,
      quirks: [],
    })
    expect(info.references).toHaveLength(2)
    expect(info.signatures).toHaveLength(2)
    expect(formatNarInfo(info)).toBe(text)
  })

  test('reads the least there can be', () => {
    const least = ['FileHash', 'FileSize', 'Deriver', 'Sig', 'Sig', 'CA'].reduce(
      (rest, key) => rest.replace(new RegExp(`^${key}: .*\n`, 'm'), ''),
      replace('References', ''),
    )
    const info = parse(least)
    expect(info).toMatchObject({ references: [], signatures: [], quirks: [] })
    expect(formatNarInfo(info)).toBe(least)
  })

  test.each([
    ['key-order', without('CA').replace('StorePath', `CA: fixed:r:sha256:${HASH32}\nStorePath`)],
    ['unknown-key', `${text}System: x86_64-linux\n`],
    ['unknown-key', `${text}Provenance: {"type":"copied"}\n`],
    ['no-compression', without('Compression')],
    ['no-compression', replace('Compression', '')],
    ['no-references', without('References')],
    [
      'reference-order',
      replace(
        'References',
        '10s5j3mfdg22k1597x580qrhprnzcjwb-hello-2.12 0c0i1lczx1n1qc0y4yf7ykq1nyzrqj2f-glibc-2.36',
      ),
    ],
    ['hash-encoding', replace('NarHash', `sha256:${'ab'.repeat(32)}`)],
    ['hash-encoding', replace('FileHash', `sha256-${Buffer.alloc(32).toString('base64')}`)],
    ['unknown-deriver', replace('Deriver', 'unknown-deriver')],
  ] as const)('takes the habit %s of other producers, and names it', (quirk, value) => {
    const info = parse(value)
    expect(info.quirks).toEqual([quirk])
    expect(parse(formatNarInfo(info)).quirks).toEqual([])
  })

  test('without Compression the file is bzip2', () => {
    expect(parse(without('Compression')).compression).toBe('bzip2')
  })

  test.each(['StorePath', 'URL', 'NarHash', 'NarSize'])('refuses one without %s', (key) => {
    expect(() => parse(without(key))).toThrow(code('NAR_INFO_KEY'))
  })

  const single = text
    .split('\n')
    .map((line) => line.split(':')[0] ?? '')
    .filter((key) => key !== '' && key !== 'Sig')
  test.each([...new Set(single), 'System', 'Unknown'])(
    'refuses %s twice, of which Nix takes the last',
    (key) => {
      const line = text.split('\n').find((l) => l.startsWith(`${key}:`)) ?? `${key}: x`
      expect(() => parse(`${text}${line}\n${line}\n`)).toThrow(code('NAR_INFO_KEY'))
    },
  )

  test.each([
    ['CRLF', text.replaceAll('\n', '\r\n'), 'NAR_INFO_LINE'],
    ['one CR', text.replace('\n', '\r\n'), 'NAR_INFO_LINE'],
    ['no line feed at the end', text.slice(0, -1), 'NAR_INFO_LINE'],
    ['an empty line', `${text}\n`, 'NAR_INFO_LINE'],
    ['no space after the colon', text.replace(': ', ':'), 'NAR_INFO_LINE'],
    ['a space before the colon', text.replace(':', ' :'), 'NAR_INFO_LINE'],
    ['an empty key', `${text}: x\n`, 'NAR_INFO_LINE'],
    ['NUL', text.replace('hello', 'hel\0lo'), 'NAR_INFO_LINE'],
    ['a byte above ASCII', `${text}X: \xe9\n`, 'NAR_INFO_LINE'],
    ['an error page', '<html>\n<body>\n', 'NAR_INFO_LINE'],
    ['a store path elsewhere', replace('StorePath', '/tmp/x'), 'NAR_INFO_VALUE'],
    ['a file in a store path', text.replace('hello-2.12\n', 'hello-2.12/x\n'), 'NAR_INFO_VALUE'],
    ['another algorithm', replace('NarHash', `sha1:${'ab'.repeat(20)}`), 'NAR_INFO_VALUE'],
    ['a hash of no algorithm', replace('NarHash', HASH32), 'NAR_INFO_VALUE'],
    ['an empty archive', replace('NarSize', '0'), 'NAR_INFO_VALUE'],
    ['a negative size', replace('NarSize', '-1'), 'NAR_INFO_VALUE'],
    ['a signed size', replace('NarSize', '+1'), 'NAR_INFO_VALUE'],
    ['a size with a zero before it', replace('NarSize', '01'), 'NAR_INFO_VALUE'],
    ['a size beyond 2^53', replace('NarSize', '9007199254740993'), 'NAR_INFO_VALUE'],
    ['a space after the value', replace('NarSize', '1 '), 'NAR_INFO_VALUE'],
    ['a full path as reference', replace('References', '/nix/store/x'), 'NAR_INFO_VALUE'],
    ['two spaces between', text.replace(' 10s5j3', '  10s5j3'), 'NAR_INFO_VALUE'],
    ['a deriver that is a path', replace('Deriver', '/nix/store/x.drv'), 'NAR_INFO_VALUE'],
    ['an empty deriver', replace('Deriver', ''), 'NAR_INFO_VALUE'],
    ['a signature without a name', replace('Sig', SIGNATURE.slice(5)), 'NAR_INFO_VALUE'],
    ['an unknown content address', replace('CA', 'magic:sha256:x'), 'NAR_INFO_VALUE'],
    ['a format that is a command', replace('Compression', 'xz; rm'), 'NAR_INFO_VALUE'],
  ])('refuses %s', (_, value, expected) => {
    expect(() => parse(value)).toThrow(code(expected))
  })

  test('refuses a reference twice', () => {
    const twice = Array.from({ length: 2 }, () => '0c0i1lczx1n1qc0y4yf7ykq1nyzrqj2f-glibc-2.36')
    expect(() => parse(replace('References', twice.join(' ')))).toThrow(code('NAR_INFO_VALUE'))
  })

  test.each([
    '/etc/passwd',
    '../x',
    'nar/../../x',
    'nar/./x',
    '.',
    'https://elsewhere.test/x',
    '//elsewhere.test/x',
    'nar\\..\\x',
    'nar/%2e%2e/x',
    'nar/x y',
    '',
  ])('refuses the URL %j, which leads out of the cache', (url) => {
    expect(() => parse(replace('URL', url))).toThrow(code('NAR_INFO_VALUE'))
  })

  test('takes a URL with a query, as harmonia writes', () => {
    expect(parse(replace('URL', 'nar/x.nar?hash=y')).url).toBe('nar/x.nar?hash=y')
  })

  test('is about the path that was asked for', () => {
    const hello = parseStorePath('/nix/store/10s5j3mfdg22k1597x580qrhprnzcjwb-hello-2.12')
    expect(parse(text, { path: hello }).path).toBe(hello)
    expect(parse(text, { hashPart: '10s5j3mfdg22k1597x580qrhprnzcjwb' }).path).toBe(hello)
    const others = [
      { path: parseStorePath('/nix/store/10s5j3mfdg22k1597x580qrhprnzcjwb-hello-2.13') },
      { path: parseStorePath('/nix/store/20s5j3mfdg22k1597x580qrhprnzcjwb-hello-2.12') },
      { hashPart: '20s5j3mfdg22k1597x580qrhprnzcjwb' },
      { hashPart: '' },
    ]
    for (const options of others) expect(() => parse(text, options)).toThrow(code('NAR_INFO_PATH'))
  })
})

describe('any narinfo', () => {
  test.each<[string, object, string]>([
    [
      'a line in a signature',
      { signatures: [`${SIGNATURE}\nCA: text:sha256:${HASH32}`] },
      'NAR_INFO_LINE',
    ],
    ['a line in the URL', { url: 'nar/x\nCompression: none' }, 'NAR_INFO_LINE'],
    ['a signature that is none', { signatures: ['a:b'] }, 'NAR_INFO_VALUE'],
    ['a URL that leads away', { url: '../x' }, 'NAR_INFO_VALUE'],
    ['no size', { narSize: 0 }, 'NAR_INFO_VALUE'],
  ])('is not printed with %s', (_name, change, error) => {
    const { ca: _, ...info } = parse(text)
    expect(formatNarInfo(info)).toBe(without('CA'))
    expect(() => formatNarInfo({ ...info, ...change })).toThrow(code(error))
  })

  test('whose lines are shuffled, dropped or doubled is refused, or prints the same exactly when it has no quirks', () => {
    const lines = text.trimEnd().split('\n')
    const line = fc.oneof(
      fc.constantFrom(...lines),
      fc.constantFrom('System: x', 'Deriver: unknown-deriver', 'Compression: ', 'References: '),
    )
    fc.assert(
      fc.property(
        fc.oneof(fc.shuffledSubarray(lines, { minLength: 8 }), fc.array(line, { maxLength: 14 })),
        (chosen) => {
          const value = chosen.map((one) => `${one}\n`).join('')
          let seen: ReturnType<typeof parse> | undefined
          try {
            seen = parse(value)
          } catch (error) {
            expect(error).toMatchObject({ code: expect.stringMatching(/^NAR_INFO_/) })
            return
          }
          expect(formatNarInfo(seen) === value).toBe(seen.quirks.length === 0)
        },
      ),
      { numRuns: 500 },
    )
  })
})
