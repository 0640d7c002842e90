export { selfSignedCertificate } from './certificate.ts'
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
export {
  findPostgres,
  postgresAvailable,
  startPostgres,
  type TemporaryPostgres,
} from './postgres.ts'
export { startSystemd, systemdAvailable, type TestSystemd } from './systemd.ts'
