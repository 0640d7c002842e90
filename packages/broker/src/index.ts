export {
  createApp,
  routesOf,
  type App,
  type AppRequest,
  type Handlers,
  type Surface,
} from './app.ts'
export { openBroker, type Broker, type Surroundings } from './broker.ts'
export { loadConfig, parseConfig, type Config } from './config.ts'
export { BROKER_ERROR_CODES, BrokerError, type BrokerErrorCode } from './error.ts'
export { PROBLEM_TABLE } from './problems.ts'
export { listen, type Listening } from './server.ts'
