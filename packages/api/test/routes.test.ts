import { describe, expect, test } from 'vitest'
import { BODY_LIMITS } from '../src/limits.ts'
import { openApiDocument } from '../src/openapi.ts'
import { ROUTE_IDS, ROUTES } from '../src/routes.ts'

describe('the route table', () => {
  test('has each id, and each method with path, once', () => {
    expect(ROUTES.map(({ id }) => id).toSorted()).toEqual([...ROUTE_IDS].toSorted())
    expect(new Set(ROUTES.map(({ method, path }) => `${method} ${path}`)).size).toBe(ROUTES.length)
  })

  test('bounds the body of every POST and has none for a GET', () => {
    for (const { id, method, request } of ROUTES) {
      expect([id, method === 'POST']).toEqual([id, request !== undefined])
      expect(request?.maxBytes ?? 1).toBeLessThanOrEqual(BODY_LIMITS.attestation)
    }
  })
})

describe('the OpenAPI document', () => {
  // oxlint-disable-next-line typescript/no-explicit-any
  const document: any = openApiDocument('0.1.0')

  test('describes every route with its authentication', () => {
    for (const { id, method, path, auth } of ROUTES) {
      const operation = document.paths[path.replace('*}', '}')][method.toLowerCase()]
      expect(operation).toMatchObject({ operationId: id, 'x-bagcheck-auth': auth })
    }
  })

  test('is plain JSON that says the same each time', () => {
    expect(JSON.parse(JSON.stringify(document))).toEqual(document)
    expect(openApiDocument('0.1.0')).toEqual(document)
  })
})
