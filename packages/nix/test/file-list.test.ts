import { describe, expect, test } from 'vitest'
import {
  filesOfStorePath,
  makeFileList,
  parseFileList,
  parseStorePath,
  sha256Hex,
} from '@bagcheck/nix'
import type { ListedFile } from '@bagcheck/nix'

const base = `/nix/store/${'a'.repeat(32)}-x`
const sha256 = sha256Hex('')
const file = (path: string, size = 0, executable = false): ListedFile => ({
  path,
  sha256,
  size,
  executable,
})
const line = (path: string, size: string | number = 0, mode = '0444'): string =>
  `${path} ${sha256} ${size} ${mode}\n`
const parse = (text: string): unknown => parseFileList(Buffer.from(text, 'latin1'))

describe('a file list', () => {
  test('is sorted by the bytes of the path, with every other byte escaped', () => {
    const files = [
      file(`${base}/z`),
      file(`${base}/a b`, 3, true),
      file(`${base}/a%`),
      file(`${base}/a~`),
      file(`${base}/caf\u00e9`),
      file(`${base}/bad\udcff`),
      file(`${base}/tab\t`),
    ]
    const list = makeFileList(files)
    // " " (0x20) is before "%" (0x25) and "~" (0x7e), although "%20" is not before "~".
    expect(list.text).toBe(
      line(`${base}/a%20b`, 3, '0555') +
        line(`${base}/a%25`) +
        line(`${base}/a~`) +
        line(`${base}/bad%FF`) +
        line(`${base}/caf%C3%A9`) +
        line(`${base}/tab%09`) +
        line(`${base}/z`),
    )
    expect(list.digest).toBe(sha256Hex(list.text))
    expect(list.byPath.get(`${base}/caf\u00e9`)).toEqual(file(`${base}/caf\u00e9`))
    expect(parseFileList(Buffer.from(list.text))).toEqual(list)
  })

  test('may be empty, for a closure of links and directories', () => {
    expect(parse('')).toMatchObject({ files: [], text: '' })
  })

  test.each([
    ['no line feed at the end', line(base).slice(0, -1), 'FILE_LIST_LINE'],
    ['a file outside the store', line('/etc/passwd'), 'FILE_LIST_LINE'],
    ['".." in a path', line(`${base}/../y`), 'FILE_LIST_LINE'],
    ['an escaped ".."', line(`${base}/%2E%2E/y`), 'FILE_LIST_LINE'],
    ['an escaped slash', line(`${base}%2Fy`), 'FILE_LIST_LINE'],
    ['an escaped NUL', line(`${base}/a%00`), 'FILE_LIST_LINE'],
    ['two slashes', line(`${base}//y`), 'FILE_LIST_LINE'],
    ['a slash at the end', line(`${base}/`), 'FILE_LIST_LINE'],
    ['an escape that is not needed', line(`${base}/%41`), 'FILE_LIST_LINE'],
    ['a lower-case escape', line(`${base}/%c3%a9`), 'FILE_LIST_LINE'],
    ['a lone "%"', line(`${base}/50%`), 'FILE_LIST_LINE'],
    ['a byte that must be escaped', line(`${base}/\u00e9`), 'FILE_LIST_LINE'],
    [
      'a path of 4097 bytes',
      line(`${base}/${'d/'.repeat(2040)}${'x'.repeat(4097)}`),
      'FILE_LIST_LINE',
    ],
    ['mode 0644', line(base, 0, '0644'), 'FILE_LIST_LINE'],
    ['mode 555', line(base, 0, '555'), 'FILE_LIST_LINE'],
    ['mode 04555', line(base, 0, '04555'), 'FILE_LIST_LINE'],
    ['a fifth field', line(base, 0, '0444 x'), 'FILE_LIST_LINE'],
    ['a size with a leading zero', line(base, '00'), 'FILE_LIST_LINE'],
    ['a negative size', line(base, '-1'), 'FILE_LIST_LINE'],
    ['an upper-case hash', line(base).replace(sha256, sha256.toUpperCase()), 'FILE_LIST_LINE'],
    ['lines out of order', line(`${base}/b`) + line(`${base}/a`), 'FILE_LIST_ORDER'],
    ['a line twice', line(base) + line(base), 'FILE_LIST_ORDER'],
    [
      'the order of escaped text',
      line(`${base}/a%`.replace('%', '%25')) + line(`${base}/a%20b`),
      'FILE_LIST_ORDER',
    ],
  ])('is refused with %s', (_, text, code) => {
    expect(() => parse(text)).toThrow(expect.objectContaining({ code }))
  })

  test('gives the files of one store path, and not those of its namesakes', () => {
    const other = `/nix/store/${'a'.repeat(32)}-x-doc`
    const alone = `/nix/store/${'b'.repeat(32)}-y`
    const list = makeFileList([
      file(`${base}/a`),
      file(`${base}/z`),
      file(`${other}/b`),
      file(alone),
    ])
    const names = (path: string): string[] =>
      filesOfStorePath(list, parseStorePath(path)).map((f) => f.path)
    expect(names(base)).toEqual([`${base}/a`, `${base}/z`])
    expect(names(other)).toEqual([`${other}/b`])
    expect(names(alone)).toEqual([alone])
    expect(names(`/nix/store/${'c'.repeat(32)}-z`)).toEqual([])
  })
})
