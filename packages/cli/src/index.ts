export {
  CGROUP_PARENT_VARIABLE,
  PRIVATE_ROOT_VARIABLE,
  enterPrivateRoot,
} from './demo/private-root.ts'
