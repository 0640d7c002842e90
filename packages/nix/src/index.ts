export { buildFileList } from './build-file-list.ts'
export type { BuildFileListOptions } from './build-file-list.ts'
export { readClosure } from './closure.ts'
export type { ClosureSource } from './closure.ts'
export { connectDaemon, NIX_DAEMON_SOCKET } from './daemon.ts'
export type { DaemonOptions, NixDaemon } from './daemon.ts'
export { NIX_DATABASE_FILE, openNixDatabase } from './database.ts'
export type { NixDatabase } from './database.ts'
export { NIX_ERROR_CODES, NixError } from './error.ts'
export type { NixErrorCode, NixErrorOptions } from './error.ts'
export { FILE_LIST_MAX_BYTES, filesOfStorePath, makeFileList, parseFileList } from './file-list.ts'
export type { FileList, ListedFile } from './file-list.ts'
export { decodeFileName, encodeFileName } from './file-name.ts'
export { narHashDigest, narHashFromDigest, parseNarHash, parseSha256, sha256Hex } from './hash.ts'
export type { NarHash, Sha256 } from './hash.ts'
export { openLedger } from './ledger.ts'
export type { Ledger, LedgerRecord } from './ledger.ts'
export { buildManifest, MANIFEST_MAX_BYTES, parseManifest } from './manifest.ts'
export type { ClosureManifest, PathInfo } from './manifest.ts'
export { hashNar } from './nar/hash.ts'
export type { NarFacts } from './nar/hash.ts'
export { NAR_MAX_DEPTH, readNar } from './nar/reader.ts'
export type { NarEvent, NarLimits } from './nar/reader.ts'
export { writeNar } from './nar/writer.ts'
export { decodeNix32, encodeNix32 } from './nix32.ts'
export {
  byteOrder,
  makeStorePath,
  parseStorePath,
  parseStorePathBase,
  STORE_DIR,
  storePathBase,
  storePathName,
  storePathOf,
} from './store-path.ts'
export type { StorePath } from './store-path.ts'
export { STRENGTHS, verifyClosure } from './verify.ts'
export type { ClosureVerification, Strength, VerifyOptions, VerifyProgress } from './verify.ts'
export type { ReadAttributes } from './verify/attributes.ts'
export type { Mismatch } from './verify/mismatch.ts'
export type { Snapshot } from './verify/snapshot.ts'
export type { StrayLink } from './verify/stray-links.ts'
