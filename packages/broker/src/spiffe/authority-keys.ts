// Private keys of authorities: one file each in `stateDir/authorities`, named by the authority, 0600. They
// never leave the broker that made them: whose authority it is, is who has the file.
//
// A key is on disk, synced, before the log names it. A crash between the two leaves a file that no entry
// names, and that nothing was signed with: it goes away at the next start, as do keys of authorities that
// were revoked or have retired.
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { AuthorityKind } from '@bagcheck/api'
import { jwkThumbprint } from '@bagcheck/attest'
import { BrokerError, quote } from '../error.ts'
import { publicJwkOf } from '../keys.ts'
import { loadOrCreateSecret, openStateDir, readSecretFile } from '../secret-file.ts'
import { keyIdentifier } from './certificate.ts'

/** The keys that this broker holds. */
export class AuthorityKeys {
  readonly #dir: string
  readonly #keys: Map<string, KeyObject>

  private constructor(dir: string, keys: Map<string, KeyObject>) {
    this.#dir = dir
    this.#keys = keys
  }

  /** @throws {BrokerError} STATE_DIR, KEY_FILE_* */
  static open(stateDir: string): AuthorityKeys {
    const dir = join(stateDir, 'authorities')
    openStateDir(dir)
    const names = readdirSync(dir)
    // What a crash left half written.
    for (const name of names.filter((one) => one.endsWith('.new'))) rmSync(join(dir, name))
    const keys = names
      .filter((name) => name.endsWith('.pem'))
      .map((name): [string, KeyObject] => [name.slice(0, -4), readKey(join(dir, name))])
    for (const [id, key] of keys)
      if (![authorityId('x509', key), authorityId('jwt', key)].includes(id))
        throw new BrokerError('KEY_FILE_INVALID', `expected ${quote(id)}.pem to hold that key`)
    return new AuthorityKeys(dir, new Map(keys))
  }

  /** The private key of an authority, if it is ours. */
  get(id: string): KeyObject | undefined {
    return this.#keys.get(id)
  }

  /** Makes a key and returns its authority's id once the key is durable. @throws {BrokerError} KEY_FILE_* */
  create(kind: AuthorityKind): { id: string; key: KeyObject } {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const id = authorityId(kind, privateKey)
    const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
    loadOrCreateSecret(join(this.#dir, `${id}.pem`), () => pem)
    this.#keys.set(id, privateKey)
    return { id, key: privateKey }
  }

  /** Removes the keys of all other authorities, for good. */
  keepOnly(ids: ReadonlySet<string>): void {
    for (const id of this.#keys.keys()) if (!ids.has(id)) this.remove(id)
  }

  /** Removes the key of an authority that will never sign again. */
  remove(id: string): void {
    if (this.#keys.delete(id)) rmSync(join(this.#dir, `${id}.pem`), { force: true })
  }
}

/** What an authority is called: by its key, so that nobody can make two of one name. */
export function authorityId(kind: AuthorityKind, key: KeyObject): string {
  const publicKey = key.type === 'public' ? key : createPublicKey(key)
  return kind === 'x509'
    ? keyIdentifier(publicKey)
    : jwkThumbprint(publicJwkOf(publicKey, 'authority'))
}

function readKey(file: string): KeyObject {
  const pem = readSecretFile(file)
  try {
    const key = createPrivateKey(pem)
    publicJwkOf(createPublicKey(key), file)
    return key
  } catch {
    // What a parser says about a private key stays out of messages.
    throw new BrokerError('KEY_FILE_INVALID', `expected ${quote(file)} to hold a P-256 key`)
  }
}
