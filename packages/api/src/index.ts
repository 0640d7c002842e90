// One zod for schemas of the wire and of configuration files: two copies would not know each other.
export { z } from 'zod'
export { API_ERROR_CODES, ApiError, type ApiErrorCode } from './error.ts'
export { createClient, type BrokerAddress, type Client, type DecisionsQuery } from './client.ts'
export { openApiDocument } from './openapi.ts'
export {
  MAX_WAIT_SECONDS,
  ROUTES,
  ROUTE_IDS,
  decisionsQuerySchema,
  waitQuerySchema,
  type Route,
  type RouteAuth,
  type RouteId,
} from './routes.ts'
export * from './evidence.ts'
export * from './evidence-bundle.ts'
export { BODY_LIMITS, TEXT_LIMITS } from './limits.ts'
export * from './log-content.ts'
export * from './observation.ts'
export * from './svid.ts'
export * from './token-exchange.ts'
export type { UnitRecord } from './unit-record.ts'
export * from './wire.ts'
