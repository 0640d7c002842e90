export { auditDerivations } from './audit/audit.ts'
export type { ImpurityAudit } from './audit/audit.ts'
export { AUDIT_KINDS, AUDIT_SEVERITIES } from './audit/finding.ts'
export type { AuditFinding, AuditKind, AuditSeverity } from './audit/finding.ts'
export { AUDITED_FILE_BYTES, auditSources } from './audit/sources.ts'
export type { SourceAudit } from './audit/sources.ts'
export { buildFileList } from './build-file-list.ts'
export type { BuildFileListOptions } from './build-file-list.ts'
export { CACHE_INFO_MAX_BYTES, formatCacheInfo, parseCacheInfo } from './cache/info.ts'
export type { CacheInfo } from './cache/info.ts'
export { openBinaryCache } from './cache/source.ts'
export type { BinaryCache, BinaryCacheOptions } from './cache/source.ts'
export type { HttpOptions } from './cache/http.ts'
export { readClosure } from './closure.ts'
export type { ClosureSource } from './closure.ts'
export { BUILD_VERDICTS, classifyBuilds } from './compare/classify.ts'
export type {
  Build,
  BuildComparison,
  BuildVerdict,
  ClassifyOptions,
  SameOrNot,
} from './compare/classify.ts'
export type { ComparedPath, ContentComparison, NarOpener } from './compare/content.ts'
export { compareIntents, intentDigest } from './compare/intent.ts'
export type { BuildIntent, IntentComparison, IntentDifference } from './compare/intent.ts'
export {
  contentAddressedPath,
  formatContentAddress,
  formatMethodAndAlgorithm,
  parseContentAddress,
  parseMethodAndAlgorithm,
  textPath,
} from './content-address.ts'
export type { ContentAddress, ContentReferences, IngestionMethod } from './content-address.ts'
export { CLOSURE_DIFF_SCHEMA, diffClosures, PACKAGE_CHANGES } from './closure-diff/diff.ts'
export type {
  ClosureDiff,
  DiffPath,
  DiffSide,
  Identify,
  IdentitySource,
  PackageChange,
  PackageChangeKind,
} from './closure-diff/diff.ts'
export { identifyByDerivation, packageOfOutput } from './closure-diff/identify.ts'
export { guessPackageName } from './closure-diff/package-name.ts'
export type { PackageName } from './closure-diff/package-name.ts'
export type { PairedPath, PathPair } from './closure-diff/pair.ts'
export { connectDaemon, NIX_DAEMON_SOCKET } from './daemon.ts'
export type { DaemonOptions, NixDaemon } from './daemon.ts'
export { NIX_DATABASE_FILE, openNixDatabase } from './database.ts'
export type { NixDatabase } from './database.ts'
export {
  DERIVATION_MAX_BYTES,
  DERIVATION_MAX_ELEMENTS,
  formatDerivation,
  parseDerivation,
} from './derivation/aterm.ts'
export { readAttributes } from './derivation/attributes.ts'
export type { Attributes } from './derivation/attributes.ts'
export {
  decodeByteString,
  derivationKind,
  DYNAMIC_OUTPUTS_MAX_DEPTH,
  encodeByteString,
  outputPath,
} from './derivation/derivation.ts'
export type {
  Derivation,
  DerivationKind,
  DerivationOutput,
  DynamicOutputs,
  UsedOutputs,
} from './derivation/derivation.ts'
export {
  derivationGraph,
  derivationPath,
  loadDerivationGraph,
  storeDirectoryReader,
} from './derivation/graph.ts'
export type {
  DerivationGraph,
  DerivationGraphOptions,
  DerivationReader,
} from './derivation/graph.ts'
export { DERIVATION_JSON_MAX_BYTES, parseDerivationJson } from './derivation/json.ts'
export { DERIVATION_JSON_VERSIONS, formatDerivationJson } from './derivation/format-json.ts'
export type { DerivationJsonVersion } from './derivation/format-json.ts'
export { hashDerivationModulo, hashGraphModulo } from './derivation/modulo.ts'
export type { HashModulo } from './derivation/modulo.ts'
export { computeOutputPaths, verifyOutputPaths } from './derivation/output-paths.ts'
export type { DerivationChange, UsedInput } from './derivation/own-changes.ts'
export { findRootCauses } from './derivation/root-causes.ts'
export type {
  LoneDerivation,
  PropagatedChange,
  RootCause,
  RootCauses,
} from './derivation/root-causes.ts'
export { NIX_ERROR_CODES, NixError } from './error.ts'
export type { NixErrorCode, NixErrorOptions } from './error.ts'
export { FILE_LIST_MAX_BYTES, filesOfStorePath, makeFileList, parseFileList } from './file-list.ts'
export type { FileList, ListedFile } from './file-list.ts'
export { buildFileListFromNars } from './file-list-from-nars.ts'
export type { NarFileListOptions } from './file-list-from-nars.ts'
export { decodeFileName, encodeFileName } from './file-name.ts'
export {
  formatHash,
  formatHashDigits,
  HASH_ALGORITHMS,
  hashLength,
  narHashDigest,
  narHashFromDigest,
  parseHash,
  parseHashAlgorithm,
  parseHashDigits,
  parseNarHash,
  parseSha256,
  sha256Hex,
} from './hash.ts'
export type { HashAlgorithm, HashEncoding, NarHash, NixHash, Sha256 } from './hash.ts'
export { openLedger } from './ledger.ts'
export type { Ledger, LedgerRecord } from './ledger.ts'
export { buildManifest, MANIFEST_MAX_BYTES, parseManifest } from './manifest.ts'
export type { ClosureManifest, PathInfo } from './manifest.ts'
export { auditFlakeLock, FLAKE_LOCK_PROBLEMS } from './flake-lock/audit.ts'
export type { FlakeLockFinding, FlakeLockProblem } from './flake-lock/audit.ts'
export { diffFlakeLocks, FLAKE_INPUT_CHANGES, FLAKE_LOCK_DIFF_SCHEMA } from './flake-lock/diff.ts'
export type {
  FlakeInputChange,
  FlakeInputChangeKind,
  FlakeInputState,
  FlakeLockDiff,
} from './flake-lock/diff.ts'
export { findFlakeInput, flakeInputs, flakeTree } from './flake-lock/inputs.ts'
export type { FlakeInput, FlakePin, FlakeTree } from './flake-lock/inputs.ts'
export { FLAKE_LOCK_MAX_BYTES, parseFlakeLock } from './flake-lock/parse.ts'
export type {
  FetchAttributes,
  FlakeLink,
  FlakeLock,
  FlakeNode,
  LockedNode,
} from './flake-lock/parse.ts'
export { printFlakeLock } from './flake-lock/print.ts'
export { formatNarInfo, NAR_INFO_MAX_BYTES, NAR_INFO_QUIRKS, parseNarInfo } from './nar-info.ts'
export type { NarInfo, NarInfoQuirk, ParsedNarInfo } from './nar-info.ts'
export { dumpNar } from './nar/dump.ts'
export { hashNar } from './nar/hash.ts'
export type { NarFacts } from './nar/hash.ts'
export { decompressNar, NAR_COMPRESSIONS } from './nar/decompress.ts'
export type { CompressedNar, NarDecoder } from './nar/decompress.ts'
export { encodeNar } from './nar/encode.ts'
export { formatNarListing, LISTING_MAX_BYTES, listNar, parseNarListing } from './nar/listing.ts'
export type { NarDirectory, NarListing, NarRegular, NarSymlink } from './nar/listing.ts'
export { readNar } from './nar/reader.ts'
export type { NarEvent, NarLimits } from './nar/reader.ts'
export { NAR_MAX_DEPTH } from './nar/rules.ts'
export { hashRewritten, rewriteHashes } from './nar/rewrite.ts'
export { writeNar } from './nar/writer.ts'
export { decodeNix32, encodeNix32 } from './nix32.ts'
export { BOOTSPEC_MAX_BYTES, bootspecStorePaths, parseBootspec } from './nixos/bootspec.ts'
export type { Bootspec } from './nixos/bootspec.ts'
export { bootedToplevel, readBootspec, readNixosHost } from './nixos/host.ts'
export type { Generation, NixosHost } from './nixos/host.ts'
export { findReferenceHolders } from './reference-scan.ts'
export type { HoldersOfReference, ReferenceHolder, ReferenceScanOptions } from './reference-scan.ts'
export {
  derivationName,
  downstreamPlaceholder,
  dynamicPlaceholder,
  inputAddressedPath,
  isDerivationPath,
  outputPathName,
  ownOutputPlaceholder,
} from './output-path.ts'
export { parsePathInfoJson, PATH_INFO_MAX_BYTES } from './path-info/json.ts'
export { recordedSource } from './path-info/recorded.ts'
export type { RecordedKind } from './path-info/recorded.ts'
export {
  formatRegistrations,
  parseRegistrations,
  REGISTRATION_MAX_BYTES,
} from './path-info/registration.ts'
export {
  findSigners,
  formatCachePublicKey,
  parseCachePublicKey,
  parseCacheSecretKey,
  parseCacheSignature,
  pathInfoFingerprint,
  signPathInfo,
} from './signature.ts'
export type { CachePublicKey, CacheSecretKey, CacheSignature } from './signature.ts'
export {
  byteOrder,
  makeStorePath,
  parseStorePath,
  parseStorePathBase,
  STORE_DIR,
  storePathBase,
  storePathHash,
  storePathName,
  storePathOf,
} from './store-path.ts'
export type { StorePath } from './store-path.ts'
export { namesItsContent, verifyPathInfo } from './trust.ts'
export type { CacheTrust, Vouched } from './trust.ts'
export { STRENGTHS, verifyClosure } from './verify.ts'
export type { ClosureVerification, Strength, VerifyOptions, VerifyProgress } from './verify.ts'
export type { ReadAttributes } from './verify/attributes.ts'
export type { Mismatch } from './verify/mismatch.ts'
export type { Snapshot } from './verify/snapshot.ts'
export { compareVersions, parseDrvName } from './version.ts'
export type { DrvName } from './version.ts'
export { referenceChains, shortestChain } from './why.ts'
export type { ChainLimits, ReferenceChain } from './why.ts'
export type { StrayLink } from './verify/stray-links.ts'
