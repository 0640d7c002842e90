export {
  CGROUP_PARENT_VARIABLE,
  PRIVATE_ROOT_VARIABLE,
  enterPrivateRoot,
} from './demo/private-root.ts'
export { CLI_ERROR_CODES, CliError, type CliErrorCode } from './error.ts'
