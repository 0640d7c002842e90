import { setTimeout as sleep } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import type { Followed } from '../../../src/front/broker-client.ts'
import { Bundles, parseBundle, type BundleSet } from '../../../src/front/spiffe/bundles.ts'
import { SpiffeAuthority } from '../../fixture/spiffe-authority.ts'

const own = new SpiffeAuthority('demo.test')
const other = new SpiffeAuthority('other.test')
const [ca, jwt] = own.keys as [Record<string, unknown>, Record<string, unknown>]

describe('a trust bundle', () => {
  test('is its keys by use; what it does not know is left out', () => {
    const unknown = [
      { kty: 'OKP', use: 'jwt-svid', kid: 'x' },
      { ...jwt, use: 'wit-svid', kid: 'w' },
      { ...jwt, use: undefined },
    ]
    const bundle = parseBundle({ keys: [...own.keys, ...unknown] })
    expect(bundle.x509.map(({ raw }) => raw)).toEqual([own.certificate])
    expect([...bundle.jwt.keys()]).toEqual([own.jwt.thumbprint])
  })

  test('without keys trusts nobody', () => {
    expect(parseBundle({ keys: [] })).toEqual({ x509: [], jwt: new Map() })
  })

  const leaf = own.certify({
    id: 'spiffe://demo.test/a',
    publicKey: Buffer.from(other.certificate).subarray(0, 0),
    ttlSeconds: 60,
  })
  test.each<[string, unknown]>([
    ['no keys', undefined],
    ['a key that is none', [null]],
    ['an authority without certificate', [{ ...ca, x5c: undefined }]],
    ['an authority of two certificates', [{ ...ca, x5c: [ca['x5c'], ca['x5c']].flat() }]],
    ['an authority that is no certificate', [{ ...ca, x5c: ['AAAA'] }]],
    ['an authority that is a leaf', [{ ...ca, x5c: [leaf.toString('base64')] }]],
    ['a JWT key without kid', [{ ...jwt, kid: undefined }]],
    ['two JWT keys of one kid', [jwt, jwt]],
    ['a point off the curve', [{ ...jwt, x: jwt['y'] }]],
  ])('with %s is refused whole', (_what, keys) => {
    expect(() => parseBundle({ keys })).toThrow(
      expect.objectContaining({ code: 'BROKER_RESPONSE' }),
    )
  })
})

describe('the bundles', () => {
  /** A broker whose documents change when told. */
  function world() {
    const documents = {
      '/bundle': { sequence: 1, keys: own.keys },
      '/bundles': { domains: {} as Record<string, unknown> },
    }
    const follow = async (
      path: '/bundle' | '/bundles',
      after: string | undefined,
    ): Promise<Followed | undefined> => {
      const body =
        path === '/bundle'
          ? { keys: documents[path].keys, spiffe_sequence: documents[path].sequence }
          : { trust_domains: documents[path].domains }
      const etag = JSON.stringify(body)
      if (etag !== after) return { etag, body }
      await sleep(5)
      return undefined
    }
    const bundles = new Bundles({
      broker: { follow },
      trustDomain: () => Promise.resolve('demo.test'),
      log: () => undefined,
    })
    const next = (): Promise<BundleSet> =>
      new Promise((resolve) => {
        const stop = bundles.subscribe((set) => {
          stop()
          resolve(set)
        })
      })
    return { documents, bundles, next }
  }

  test('are told when they change', async () => {
    const { documents, bundles, next } = world()
    using _ = bundles
    expect([...(await bundles.get()).bundles.keys()]).toEqual(['demo.test'])
    const changed = next()
    documents['/bundles'].domains = { 'other.test': { keys: other.keys } }
    expect([...(await changed).bundles.keys()]).toEqual(['other.test', 'demo.test'])
  })

  test('of another trust domain never stand in for ours', async () => {
    const { documents, bundles } = world()
    using _ = bundles
    documents['/bundles'].domains = { 'demo.test': { keys: other.keys } }
    const { bundles: known } = await bundles.get()
    expect(known.get('demo.test')?.x509.map(({ raw }) => raw)).toEqual([own.certificate])
  })

  test('do not go back to an older sequence', async () => {
    const { documents, bundles } = world()
    using _ = bundles
    await bundles.get()
    documents['/bundle'] = { sequence: 0, keys: other.keys }
    await expect(bundles.refresh()).rejects.toMatchObject({ code: 'BROKER_RESPONSE' })
    expect(bundles.known?.bundles.get('demo.test')?.jwt.has(own.jwt.thumbprint)).toBe(true)
  })

  test('that are malformed leave what was known', async () => {
    const { documents, bundles } = world()
    using _ = bundles
    await bundles.get()
    documents['/bundle'] = { sequence: 2, keys: [{ ...ca, x5c: ['AAAA'] }] }
    await expect(bundles.refresh()).rejects.toMatchObject({ code: 'BROKER_RESPONSE' })
    expect(bundles.known?.bundles.get('demo.test')?.x509).toHaveLength(1)
  })
})
