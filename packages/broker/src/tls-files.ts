// Certificate and key of the public listener. Read before anything is written, so that a broker with a wrong
// path leaves nothing behind, and again when it listens.
import { readFileSync } from 'node:fs'
import type { Config } from './config.ts'
import { BrokerError, quote } from './error.ts'
import { readSecretFile } from './secret-file.ts'

/** What a TLS server needs, or null where the configuration has none. */
export interface TlsFiles {
  readonly cert: Buffer
  readonly key: string
}

/** @throws {BrokerError} CONFIG_FILE – the certificate cannot be read; KEY_FILE_* – the key */
export function readTlsFiles(listen: Config['listen']): TlsFiles | null {
  if ('socket' in listen || listen.tls === null) return null
  const { cert, key } = listen.tls
  try {
    return { cert: readFileSync(cert), key: readSecretFile(key) }
  } catch (cause) {
    if (cause instanceof BrokerError) throw cause
    throw new BrokerError(
      'CONFIG_FILE',
      `listen.tls.cert: expected a readable file ${quote(cert)}`,
      {
        cause,
      },
    )
  }
}
