import { describe, expect, test } from 'vitest'
import { buildManifest, parseManifest, readClosure, recordedSource } from '@bagcheck/nix'
import { glibc, hello, storePath } from './facts.ts'

describe('facts that were read before', () => {
  test('are the source of a closure, with no Nix present', async () => {
    const manifest = buildManifest(hello.path, [hello, glibc])
    const source = recordedSource('manifest', parseManifest(Buffer.from(manifest.text)).entries)
    expect((await readClosure(source, hello.path)).digest).toBe(manifest.digest)
    // A part of a closure is a closure.
    expect((await readClosure(source, glibc.path)).entries).toHaveLength(1)
    await source.close()
  })

  test('that lack a path make no closure', async () => {
    const source = recordedSource('registration', [hello])
    await expect(readClosure(source, hello.path)).rejects.toMatchObject({
      code: 'PATH_INVALID',
      detail: { path: glibc.path },
    })
    await expect(readClosure(source, storePath(9, 'gone'))).rejects.toMatchObject({
      code: 'PATH_INVALID',
    })
  })

  test('that are given twice are a mistake of the caller', () => {
    expect(() => recordedSource('path-info', [hello, hello])).toThrow(TypeError)
  })
})
