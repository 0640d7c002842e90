// OpenAPI 3.1 from the route table. It lives here and not in the broker so that the committed
// docs/openapi.json can be compared without starting anything.
import { z } from 'zod'
import { ROUTES, type Route } from './routes.ts'
import { problemSchema } from './wire.ts'

type Json = Record<string, unknown>

const AUTH_TEXT: Readonly<Record<Route['auth'], string>> = {
  public: 'No authentication.',
  signature: 'Authenticated by the signatures inside the body.',
  node: "Authenticated by a node key's signature inside the body.",
  admin: 'Only on the admin unix socket.',
}

/** The whole API as an OpenAPI 3.1 document; deterministic. */
export function openApiDocument(version: string): Json {
  const paths: Record<string, Json> = {}
  for (const route of ROUTES) {
    const path = route.path.replace('*}', '}')
    paths[path] = { ...paths[path], [route.method.toLowerCase()]: operation(route) }
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Bagcheck broker',
      version,
      description: 'No attested, policy-approved Nix closure, no token.',
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    paths,
    components: { schemas: { Problem: jsonSchema(problemSchema) } },
  }
}

function operation(route: Route): Json {
  const parameters = [...pathParameters(route.path), ...queryParameters(route)]
  const { request, response } = route
  return {
    operationId: route.id,
    summary: route.summary,
    description: AUTH_TEXT[route.auth],
    'x-bagcheck-auth': route.auth,
    ...(parameters.length > 0 && { parameters }),
    ...(request && {
      requestBody: {
        required: true,
        content: { [request.contentType]: { schema: jsonSchema(request.schema) } },
      },
      'x-bagcheck-max-bytes': request.maxBytes,
    }),
    responses: {
      [response.status]: {
        description: 'Success',
        content: {
          [response.contentType]: {
            schema: response.schema ? jsonSchema(response.schema) : { type: 'string' },
          },
        },
      },
      default: {
        description: 'Refused or failed',
        content: { 'application/json': { schema: { $ref: '#/components/schemas/Problem' } } },
      },
    },
  }
}

function pathParameters(path: string): Json[] {
  return [...path.matchAll(/\{([a-z]+)\*?\}/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string' },
  }))
}

function queryParameters(route: Route): Json[] {
  return Object.entries(route.query?.shape ?? {}).map(([name, schema]) => ({
    name,
    in: 'query',
    required: false,
    schema: jsonSchema(schema as z.ZodType),
  }))
}

function jsonSchema(schema: z.ZodType): Json {
  const { $schema: _, ...rest } = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' })
  return rest
}
