// What we write, OpenSSL reads.
import { generateKeyPairSync, sign, X509Certificate } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { keyIdentifier, writeAuthority, writeLeaf } from '../../src/spiffe/certificate.ts'
import { der, integer, oid, time } from '../../src/spiffe/der.ts'
import { serialOf } from '../../src/spiffe/svid.ts'
import { uuidV7 } from '../../src/uuid.ts'

const pair = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })
const ca = pair()
const workload = pair()
const signer = (data: Uint8Array): Buffer => sign('sha256', data, ca.privateKey)
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

describe('DER', () => {
  test.each([
    [0, '0400'],
    [127, '047f'],
    [128, '048180'],
    [255, '0481ff'],
    [256, '04820100'],
    [65_536, '0483010000'],
  ])('of %i bytes has the shortest length', (length, head) => {
    expect(hex(der(0x04, Buffer.alloc(length)))).toBe(head + '00'.repeat(length))
  })

  test.each([
    ['00', '020100'],
    ['0000', '020100'],
    ['7f', '02017f'],
    ['80', '02020080'],
    ['000080', '02020080'],
    ['ff00', '020300ff00'],
  ])('of the number %s is minimal and not negative', (bytes, written) => {
    expect(hex(integer(Buffer.from(bytes, 'hex')))).toBe(written)
  })

  test.each([
    ['2.5.29.15', '0603551d0f'],
    ['1.2.840.10045.4.3.2', '06082a8648ce3d040302'],
    ['1.3.6.1.5.5.7.3.1', '06082b06010505070301'],
  ])('of the identifier %s is the one of the standard', (text, written) => {
    expect(hex(oid(text))).toBe(written)
  })

  test.each([
    ['2049-12-31T23:59:59Z', 0x17, '491231235959Z'],
    ['2050-01-01T00:00:00Z', 0x18, '20500101000000Z'],
  ])('of %s has the form that RFC 5280 wants', (text, tag, digits) => {
    const written = time(Date.parse(text) / 1000)
    expect([written[0], written.subarray(2).toString()]).toEqual([tag, digits])
  })
})

describe('certificates', () => {
  test('of any role, trust domain, serial number and time are read as they were meant', () => {
    const seconds = fc.integer({ min: 1_600_000_000, max: 4_000_000_000 })
    const name = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/)
    const domain = fc.stringMatching(/^[a-z0-9._-]{1,255}$/)
    const serials = fc.uint8Array({ minLength: 10, maxLength: 10 })
    const property = fc.property(
      ...[name, domain, serials, seconds, fc.integer({ min: 5, max: 3600 })],
      (role, trustDomain, random, at, life) => {
        const spiffeId = `spiffe://${trustDomain}/role/${role}`
        const root = new X509Certificate(
          writeAuthority(
            {
              ...{ publicKey: ca.publicKey, spiffeId: `spiffe://${trustDomain}` },
              ...{ notBefore: at - 10, notAfter: at + 86_400 },
            },
            signer,
          ),
        )
        const id = uuidV7(at * 1000, Buffer.from(random))
        const leaf = new X509Certificate(
          writeLeaf(
            {
              ...{ publicKey: workload.publicKey, spiffeId, serial: serialOf(id) },
              ...{
                notBefore: at - 10,
                notAfter: at + life,
                authority: keyIdentifier(ca.publicKey),
              },
            },
            signer,
          ),
        )
        expect(
          leaf.checkIssued(root) && leaf.verify(ca.publicKey) && root.verify(ca.publicKey),
        ).toBe(true)
        expect([leaf.subjectAltName, leaf.ca, root.ca]).toEqual([`URI:${spiffeId}`, false, true])
        expect(BigInt(`0x${leaf.serialNumber}`)).toBe(BigInt(`0x${id.replaceAll('-', '')}`))
        expect(leaf.validToDate).toEqual(new Date((at + life) * 1000))
        expect(leaf.validFromDate).toEqual(new Date((at - 10) * 1000))
      },
    )
    fc.assert(property, { numRuns: 50 })
  })

  test('say the same each time, but for the signature', () => {
    const content = {
      ...{ publicKey: workload.publicKey, spiffeId: 'spiffe://a.test/role/b' },
      ...{ serial: Buffer.alloc(16, 7), notBefore: 1, notAfter: 2, authority: 'ab'.repeat(20) },
    }
    const unsigned = (): Buffer => writeLeaf(content, () => Buffer.of(0))
    expect(unsigned().equals(unsigned())).toBe(true)
  })

  test.each(['an-id', '', 'f19ab2f4-0000-7000-8000-000000000000', '019ab2f4'])(
    'have no serial number from %j',
    (id) => {
      expect(() => serialOf(id)).toThrow(TypeError)
    },
  )
})
