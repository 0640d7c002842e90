export { AGENT_ERROR_CODES, AgentError, type AgentErrorCode } from './error.ts'
export { MeasurerPool, DEFAULT_POOL_LIMITS, type PoolLimits } from './measure/pool.ts'
export type * from './measure/messages.ts'
export { readInstance } from './measure/instance.ts'
