import { ROUTES, type Route } from '@bagcheck/api'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { createRouter } from '../src/router.ts'

const find = createRouter(ROUTES)
const route = (path: string): Route => ({ ...ROUTES[0]!, method: 'GET', path })

describe('the router', () => {
  test.each(ROUTES.map(({ id, method, path }) => [id, method, path]))(
    'finds %s, and nothing else, at %s %s',
    (id, method, path) => {
      const asked = path.replaceAll(/\{[a-z]+\*?\}/g, 'x')
      expect(find(method, asked)?.route.id).toBe(id)
      for (const one of ROUTES) {
        const alone = createRouter([one])(method, asked)
        expect(alone?.route.id).toBe(one.id === id ? id : undefined)
      }
    },
  )

  test.each([
    ['GET', '/v1/attestations/abc', { digest: 'abc' }],
    ['GET', '/v1/attestations/a%2Fb', { digest: 'a/b' }],
    ['HEAD', '/v1/attestations/abc', { digest: 'abc' }],
    ['GET', '/tile/0/x001/067', { path: '0/x001/067' }],
    ['GET', '/tile/0/../../etc/passwd', { path: '0/../../etc/passwd' }],
  ])('takes the places of %s %s out', (method, path, params) => {
    expect(find(method, path)?.params).toEqual(params)
  })

  test.each([
    ['GET', '/v1/attestations/'],
    ['GET', '/v1/attestations/a/b'],
    ['GET', '/v1/attestations/%'],
    ['GET', '/v1/attestations/%ff'],
    ['GET', '/tile/'],
    ['GET', '/jwks/'],
    ['GET', '//jwks'],
    ['GET', 'jwks'],
    ['GET', '/JWKS'],
    ['GET', '/%6awks'],
    ['GET', '/openapiXjson'],
    ['POST', '/jwks'],
    ['get', '/jwks'],
    ['GET', '/token'],
    ['HEAD', '/token'],
    ['OPTIONS', '*'],
    ['GET', ''],
  ])('has nothing at %s %s', (method, path) => {
    expect(find(method, path)).toBeUndefined()
  })

  test('takes a dot for a dot', () => {
    const one = createRouter([route('/a.b/{id}')])
    expect(one('GET', '/a.b/1')).toBeDefined()
    expect(one('GET', '/axb/1')).toBeUndefined()
  })

  test('never throws, whatever is asked', () => {
    fc.assert(
      fc.property(fc.webPath(), fc.string(), (path, text) => {
        find('GET', path)
        find('GET', `/v1/attestations/${text}`)
        find(text, text)
      }),
    )
  })
})
