// The broker's own secrets. The token key and the nonce key are made on first start and survive
// restarts; the log key and the decision key are made by `bagcheck policy init`, because the trust root
// names their public halves.
import {
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  generateKeyPairSync,
  randomBytes,
  sign,
  type KeyObject,
} from 'node:crypto'
import { join } from 'node:path'
import type { PublicJwk } from '@bagcheck/api'
import { joseSignature, jwkThumbprint, parseSigningKey, type SigningKey } from '@bagcheck/attest'
import { formatVkey, parseNoteKey } from '@bagcheck/log'
import type { TrustRoot } from '@bagcheck/policy'
import type { Config } from './config.ts'
import { BrokerError } from './error.ts'
import { loadOrCreateSecret, openStateDir, readSecretFile } from './secret-file.ts'

/** The key that signs tokens: ES256, and nothing else is ever signed with it. */
export interface TokenKey {
  /** RFC 7638 thumbprint. */
  readonly kid: string
  readonly jwk: PublicJwk
  /** JWS signature (r ‖ s) over `data`. */
  sign(data: Uint8Array): Buffer
}

/** All secrets of one broker. */
export interface BrokerKeys {
  readonly token: TokenKey
  /** 32 bytes; replicas that answer for each other's nonces share it. */
  readonly nonce: KeyObject
  /** Signs decisions, enrolments and bans; in the trust root's `broker` role. */
  readonly decision: SigningKey
  /** The log's secret note key, as text. */
  readonly log: string
}

/**
 * Opens or makes all keys and checks that the trust root names those it must name.
 * @throws {BrokerError} STATE_DIR, KEY_FILE_*; CONFIG_KEY_ROLE – the trust root does not name the key
 */
export function openKeys(
  config: Pick<Config, 'stateDir' | 'logKey' | 'decisionKey'>,
  root: Pick<TrustRoot, 'roles' | 'log'>,
): BrokerKeys {
  openStateDir(config.stateDir)
  const tokenPem = loadOrCreateSecret(join(config.stateDir, 'token-key.pem'), newTokenKey)
  const nonceText = loadOrCreateSecret(
    join(config.stateDir, 'nonce.key'),
    () => `${randomBytes(32).toString('hex')}\n`,
  )
  const decision = parseKey('decisionKey', () =>
    parseSigningKey(readSecretFile(config.decisionKey)),
  )
  const log = readSecretFile(config.logKey).trim()
  const vkey = parseKey('logKey', () => formatVkey(parseNoteKey(log)))
  if (!root.roles.broker.keys.some(({ keyId }) => keyId === decision.keyId))
    throw new BrokerError(
      'CONFIG_KEY_ROLE',
      `decisionKey: expected a key of the trust root's broker role, saw ${decision.keyId}`,
    )
  if (!root.log.keys.includes(vkey))
    throw new BrokerError(
      'CONFIG_KEY_ROLE',
      `logKey: expected a log key of the trust root, saw ${vkey}`,
    )
  return { token: openTokenKey(tokenPem), nonce: parseNonceKey(nonceText), decision, log }
}

/** Reads a token key from PKCS#8 PEM. @throws {BrokerError} KEY_FILE_INVALID */
export function openTokenKey(pem: string): TokenKey {
  const key = parseKey('token-key.pem', () => createPrivateKey(pem))
  const jwk = publicJwkOf(createPublicKey(key), 'token-key.pem')
  return {
    jwk,
    kid: jwkThumbprint(jwk),
    sign: (data) => joseSignature(sign('sha256', data, key)),
  }
}

/** A P-256 public key as JWK; `name` says whose in messages. @throws {BrokerError} KEY_FILE_INVALID */
export function publicJwkOf(key: KeyObject, name: string): PublicJwk {
  const { kty, crv, x, y } = key.export({ format: 'jwk' })
  if (kty !== 'EC' || crv !== 'P-256' || x === undefined || y === undefined)
    throw new BrokerError('KEY_FILE_INVALID', `${name}: expected an ECDSA key on P-256`)
  return { kty, crv, x, y }
}

function newTokenKey(): string {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
}

function parseNonceKey(text: string): KeyObject {
  if (!/^[0-9a-f]{64}\n$/.test(text))
    throw new BrokerError('KEY_FILE_INVALID', 'nonce.key: expected 64 hexadecimal digits')
  return createSecretKey(Buffer.from(text.trim(), 'hex'))
}

// What a parser says about a private key stays out of messages; parsers of ours never quote one.
function parseKey<T>(name: string, parse: () => T): T {
  try {
    return parse()
  } catch (error) {
    if (error instanceof BrokerError) throw error
    const said = error instanceof Error && 'code' in error ? ` (${String(error.code)})` : ''
    throw new BrokerError('KEY_FILE_INVALID', `${name}: expected a usable key${said}`)
  }
}

/** An RFC 7638 thumbprint as hexadecimal sha256, as statements name subjects. */
export function thumbprintHex(thumbprint: string): string {
  return Buffer.from(thumbprint, 'base64url').toString('hex')
}
