// Against protobufjs, which is what most programs of others in JavaScript use.
import { loadSync } from '@grpc/proto-loader'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import * as messages from '../../../src/front/spiffe/messages.ts'
import { decode, encode } from '../../../src/front/spiffe/protobuf.ts'

const folder = new URL('../../fixture', import.meta.url).pathname
const service = loadSync('workload.proto', { keepCase: true, includeDirs: [folder] })[
  'SpiffeWorkloadAPI'
] as unknown as Record<
  string,
  {
    requestSerialize(value: unknown): Buffer
    responseDeserialize(bytes: Buffer): unknown
  }
>

describe('a message', () => {
  test('of X.509-SVIDs reads there as it was written here', () => {
    const bytes = fc.uint8Array({ maxLength: 300 }).map((one) => Buffer.from(one))
    const svid = fc.record({
      ...{ spiffe_id: fc.string({ unit: 'grapheme' }), x509_svid: bytes, x509_svid_key: bytes },
      ...{ bundle: bytes, hint: fc.string() },
    })
    const name = fc.stringMatching(/^[a-z][a-z/:.]{0,20}$/)
    const response = fc.record({
      svids: fc.array(svid, { minLength: 1, maxLength: 4 }),
      federated_bundles: fc.dictionary(name, bytes, { minKeys: 1, noNullPrototype: true }),
    })
    fc.assert(
      fc.property(response, (value) => {
        const wire = Buffer.concat(encode(messages.X509SVIDResponse, value))
        expect(service['FetchX509SVID']?.responseDeserialize(wire)).toEqual(value)
      }),
    )
  })

  test('of claims reads there as it was written here', () => {
    const claims = {
      n: 1.5,
      zero: 0,
      t: true,
      f: false,
      s: '',
      none: null,
      l: [1, [], {}],
      o: { a: [] },
    }
    const value = { spiffe_id: 'a', claims: messages.structOf(claims) }
    const wire = Buffer.concat(encode(messages.ValidateJWTSVIDResponse, value))
    const read = service['ValidateJWTSVID']?.responseDeserialize(wire) as {
      claims: { fields: Record<string, unknown> }
    }
    expect(read.claims.fields).toMatchObject({
      n: { numberValue: 1.5 },
      zero: { numberValue: 0 },
      t: { boolValue: true },
      f: { boolValue: false },
      s: { stringValue: '' },
      none: { nullValue: 0 },
      l: { listValue: { values: [{ numberValue: 1 }, { listValue: {} }, { structValue: {} }] } },
      o: { structValue: { fields: { a: { listValue: {} } } } },
    })
  })

  test('of a request reads here as it was written there', () => {
    const request = fc.record({
      audience: fc.array(fc.string({ unit: 'grapheme', minLength: 1 }), { minLength: 1 }),
      spiffe_id: fc.string({ minLength: 1 }),
    })
    fc.assert(
      fc.property(request, (value) => {
        const wire = service['FetchJWTSVID']?.requestSerialize(value) ?? Buffer.alloc(0)
        expect(decode(messages.JWTSVIDRequest, wire)).toEqual(value)
      }),
    )
  })

  test('of anything whatever is read, or refused by its code', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
        try {
          decode(messages.JWTSVIDRequest, bytes)
        } catch (error) {
          expect(error).toMatchObject({ code: 'REQUEST_INVALID' })
        }
      }),
      { numRuns: 5000 },
    )
  })
})
