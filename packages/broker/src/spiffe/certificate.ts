// X.509 certificates of a trust domain (SPIFFE X509-SVID §2–4, RFC 5280). What a certificate says follows
// from its inputs to the last byte; only the ECDSA signature differs from one writing to the next.
//
//   authority   CA, path length 0, keyCertSign and cRLSign; URI SAN = the trust domain's SPIFFE ID
//   leaf        no CA, digitalSignature, serverAuth and clientAuth; URI SAN = the workload's SPIFFE ID, alone
import { hash, type KeyObject } from 'node:crypto'
import { bits, der, integer, octets, oid, sequence, set, time, TRUE, utf8 } from './der.ts'

/** Verifiers whose clock is behind ours by so much still accept what was just signed. */
export const BACKDATE_SECONDS = 10

/** Signs a to-be-signed certificate: ECDSA with SHA-256, as DER. */
export type SignDer = (data: Uint8Array) => Uint8Array

const ECDSA_WITH_SHA256 = sequence(oid('1.2.840.10045.4.3.2'))
const VERSION_3 = der(0xa0, integer(Buffer.of(2)))
/** Every P-256 key in the one DER that OpenSSL writes: this much, then 0x04 ‖ x ‖ y. */
const POINT_BYTES = 65

/** An authority's name, which differs from every other's, and its times in seconds since the epoch. */
export interface AuthorityContent {
  readonly publicKey: KeyObject
  /** The trust domain as a SPIFFE ID. */
  readonly spiffeId: string
  readonly notBefore: number
  readonly notAfter: number
}

/** A leaf. */
export interface LeafContent {
  readonly publicKey: KeyObject
  readonly spiffeId: string
  /** 16 bytes. */
  readonly serial: Uint8Array
  readonly notBefore: number
  readonly notAfter: number
  /** {@link keyIdentifier} of the authority. */
  readonly authority: string
}

/** The subject key identifier of a P-256 key, in hexadecimal: 160 bits of SHA-256 (RFC 7093 §2, method 1). */
export function keyIdentifier(publicKey: KeyObject): string {
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  return hash('sha256', spki.subarray(spki.length - POINT_BYTES), 'hex').slice(0, 40)
}

/** A self-signed authority. Its serial number is its key identifier: a key has one certificate. */
export function writeAuthority(content: AuthorityContent, sign: SignDer): Buffer {
  const id = keyIdentifier(content.publicKey)
  const name = authorityName(id)
  return writeCertificate(
    { ...content, serial: Buffer.from(id, 'hex'), issuer: name, subject: name },
    sign,
    [
      critical('2.5.29.19', sequence(TRUE, integer(Buffer.of(0)))), // basicConstraints: cA, pathLen 0
      critical('2.5.29.15', bits(Buffer.of(0b0000_0110), 1)), // keyUsage: keyCertSign, cRLSign
      subjectKey(id),
      uriName(content.spiffeId),
    ],
  )
}

/** A leaf that `sign`, the authority's key, vouches for. */
export function writeLeaf(content: LeafContent, sign: SignDer): Buffer {
  const issuer = authorityName(content.authority)
  const subject = sequence(attribute('2.5.4.10', 'Bagcheck'))
  return writeCertificate({ ...content, issuer, subject }, sign, [
    critical('2.5.29.19', sequence()), // basicConstraints: no cA
    critical('2.5.29.15', bits(Buffer.of(0b1000_0000), 7)), // keyUsage: digitalSignature
    extension('2.5.29.37', sequence(oid('1.3.6.1.5.5.7.3.1'), oid('1.3.6.1.5.5.7.3.2'))), // server, client
    subjectKey(keyIdentifier(content.publicKey)),
    extension('2.5.29.35', sequence(der(0x80, Buffer.from(content.authority, 'hex')))),
    uriName(content.spiffeId),
  ])
}

interface Certificate {
  readonly serial: Uint8Array
  readonly issuer: Uint8Array
  readonly subject: Uint8Array
  readonly notBefore: number
  readonly notAfter: number
  readonly publicKey: KeyObject
}

function writeCertificate(
  { serial, issuer, subject, notBefore, notAfter, publicKey }: Certificate,
  sign: SignDer,
  extensions: readonly Uint8Array[],
): Buffer {
  const body = sequence(
    VERSION_3,
    integer(serial),
    ECDSA_WITH_SHA256,
    issuer,
    sequence(time(notBefore), time(notAfter)),
    subject,
    publicKey.export({ type: 'spki', format: 'der' }),
    der(0xa3, sequence(...extensions)),
  )
  return sequence(body, ECDSA_WITH_SHA256, bits(sign(body)))
}

function authorityName(id: string): Buffer {
  return sequence(attribute('2.5.4.10', 'Bagcheck'), attribute('2.5.4.3', id))
}

function attribute(type: string, text: string): Buffer {
  return set(sequence(oid(type), utf8(text)))
}

function extension(id: string, value: Uint8Array): Buffer {
  return sequence(oid(id), octets(value))
}

function critical(id: string, value: Uint8Array): Buffer {
  return sequence(oid(id), TRUE, octets(value))
}

function subjectKey(id: string): Buffer {
  return extension('2.5.29.14', octets(Buffer.from(id, 'hex')))
}

function uriName(uri: string): Buffer {
  return extension('2.5.29.17', sequence(der(0x86, Buffer.from(uri, 'latin1'))))
}
