export { attestClosure, inventPath, pureFacts, type TestClosure } from './attested-closure.ts'
export { cached, runTool } from './cache.ts'
export { selfSignedCertificate } from './certificate.ts'
export {
  bindMount,
  containerConfig,
  containersAvailable,
  openBundles,
  removeHybridCgroups,
  startContainer,
  type Bundles,
  type CgroupLayout,
  type ContainerRuntime,
  type ContainerWishes,
  type TestContainer,
} from './container.ts'
export {
  nixAvailable,
  nixBuild,
  nixEnvironment,
  nixString,
  runNix,
  shellDerivation,
  startNixDaemon,
} from './nix.ts'
export type { TestNixDaemon } from './nix.ts'
export {
  nixReleaseCommand,
  nixReleases,
  runNixRelease,
  startNixReleaseDaemon,
} from './nix-releases.ts'
export type { NixRelease } from './nix-releases.ts'
export { policyText, type TestPolicy } from './policy-text.ts'
export { nodeKey, signJws, type NodeKey } from './node-key.ts'
export {
  evidenceOf,
  mappedFile,
  runningFacts,
  runningHost,
  runningProcess,
  SERVICE_UID,
  type EvidenceRequest,
  type RunningService,
  type TestFacts,
  type TestFile,
  type TestProcess,
} from './running-service.ts'
export {
  findPostgres,
  postgresAvailable,
  startPostgres,
  type TemporaryPostgres,
} from './postgres.ts'
export { startSystemd, systemdAvailable, type TestSystemd } from './systemd.ts'
