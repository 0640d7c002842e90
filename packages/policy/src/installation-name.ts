// The grammar of an installation's name. It stands in every document and in the configuration of broker and
// agent, and becomes part of host-like names (the log's origin): lower case, so that no two differ in case.
import { matching, type Reader } from './reader.ts'

/** What an installation may be called. */
export const INSTALLATION_NAME: RegExp = /^[a-z0-9][a-z0-9.-]{0,63}$/

/** Reads the name of an installation. */
export const installationName: Reader<string> = matching(
  'a name for an installation: 1 to 64 of a-z, 0-9, "." and "-"',
  INSTALLATION_NAME,
)
