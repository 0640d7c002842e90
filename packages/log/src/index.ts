export { LOG_ERROR_CODES, LogError, type LogErrorCode } from './error.ts'
export { HASH_BYTES, emptyRoot, leafHash, nodeHash, sameHash } from './hashing.ts'
export {
  appendLeaves,
  consistencyProof,
  inclusionProof,
  nodesNeeded,
  rootAt,
  type Appended,
  type NodeCoordinate,
  type NodeReader,
  type TreeNode,
} from './tree.ts'
export {
  MAX_PROOF_HASHES,
  verifyConsistency,
  verifyInclusion,
  type ConsistencyClaim,
  type InclusionClaim,
} from './proof.ts'
export {
  MAX_NOTE_BYTES,
  MAX_NOTE_SIGNATURES,
  formatVkey,
  generateNoteKey,
  openNote,
  parseNoteKey,
  parseVkey,
  signNote,
  type NoteKey,
  type NoteSigner,
  type NoteVerifier,
  type OpenedNote,
} from './note.ts'
export {
  formatCheckpoint,
  openCheckpoint,
  parseCheckpoint,
  signCheckpoint,
  type Checkpoint,
} from './checkpoint.ts'
export {
  MAX_ENTRY_BYTES,
  TILE_WIDTH,
  encodeEntryBundle,
  encodeHashTile,
  formatTilePath,
  parseEntryBundle,
  parseHashTile,
  parseTilePath,
  tileAt,
  tileNodeReader,
  tileOfNode,
  type TileCoordinate,
} from './tile.ts'
