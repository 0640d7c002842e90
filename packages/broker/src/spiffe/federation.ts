// Trust bundles of other trust domains. Each is a file that somebody keeps up to date, such as a job that
// fetches it from the other side's `https_web` endpoint; it is read again when it changes. The broker itself
// fetches nothing: no request of ours goes where a document says.
//
// A bundle speaks for the trust domain that the configuration names, and for no other; bundles are never
// pooled. What is malformed is refused as a whole, and the last good one stays.
import { X509Certificate } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import type { BundleMap } from '@bagcheck/api'
import { parseStrictJson } from '@bagcheck/attest'
import { trustDomainId } from '@bagcheck/policy'
import { z } from 'zod'
import { Changes } from '../changes.ts'
import { BrokerError, quote } from '../error.ts'
import { tagged, type Tagged } from './bundle.ts'

const MAX_BUNDLE_BYTES = 1024 * 1024
const base64 = z.string().regex(/^[A-Za-z0-9+/]+={0,2}$/)

// Keys of another `kty` or `use` are passed on: whoever verifies leaves them alone.
const keySchema = z.looseObject({ kty: z.string(), use: z.string() })
const foreignSchema = z.looseObject({
  keys: z.array(keySchema).max(1024),
  spiffe_sequence: z.int().min(0).optional(),
  spiffe_refresh_hint: z.int().min(0).optional(),
})
type Foreign = z.infer<typeof foreignSchema>

interface Source {
  readonly trustDomain: string
  readonly bundle: string
}

/** The configured bundles. */
export class Federation {
  readonly #sources: readonly Source[]
  readonly #changes = new Changes()
  readonly #read = new Map<string, { readonly stamp: string; readonly bundle: Foreign }>()
  readonly #maps = new Map<string, Tagged>()

  /** Reads every file. @throws {BrokerError} BUNDLE_FILE, CONFIG_INVALID – a trust domain twice */
  constructor(sources: readonly Source[]) {
    this.#sources = sources
    if (new Set(sources.map(({ trustDomain }) => trustDomain)).size !== sources.length)
      throw new BrokerError('CONFIG_INVALID', 'spiffe.federatesWith: expected each domain once')
    for (const source of sources) this.#load(source)
  }

  /** Reads again what has changed; what cannot be read stays as it was, and is told. */
  reload(failed: (error: unknown) => void): void {
    for (const source of this.#sources) {
      try {
        this.#load(source)
      } catch (error) {
        failed(error)
      }
    }
  }

  /** The bundle map, without `own`: our own bundle comes from our own log and from nowhere else. */
  bundles(own: string): Tagged {
    const known = this.#maps.get(own)
    if (known !== undefined) return known
    const others = [...this.#read].filter(([trustDomain]) => trustDomain !== own)
    const map: BundleMap = {
      trust_domains: Object.fromEntries(others.map(([name, { bundle }]) => [name, bundle])),
    }
    const made = tagged(map)
    this.#maps.set(own, made)
    return made
  }

  /** Resolves when a bundle changed, after `ms`, or when `signal` aborts. */
  waitForChange(ms: number, signal: AbortSignal): Promise<void> {
    return this.#changes.wait(ms, signal)
  }

  #load({ trustDomain, bundle: file }: Source): void {
    const stat = statSync(file, { throwIfNoEntry: false })
    if (stat === undefined || !stat.isFile() || stat.size > MAX_BUNDLE_BYTES)
      throw refused(file, `expected a file of at most ${MAX_BUNDLE_BYTES} bytes`)
    const stamp = `${stat.dev} ${stat.ino} ${stat.mtimeMs} ${stat.ctimeMs} ${stat.size}`
    if (this.#read.get(trustDomain)?.stamp === stamp) return
    const bundle = parseBundle(file, trustDomain)
    const before = this.#read.get(trustDomain)?.bundle.spiffe_sequence
    if (before !== undefined && (bundle.spiffe_sequence ?? 0) < before)
      throw refused(file, `expected spiffe_sequence ${before} or later`)
    this.#read.set(trustDomain, { stamp, bundle })
    this.#maps.clear()
    this.#changes.emit()
  }
}

function parseBundle(file: string, trustDomain: string): Foreign {
  let value: unknown
  try {
    value = parseStrictJson(readFileSync(file), { maxBytes: MAX_BUNDLE_BYTES, maxDepth: 8 })
  } catch (cause) {
    throw refused(file, 'expected JSON', cause)
  }
  const parsed = foreignSchema.safeParse(value)
  if (!parsed.success) throw refused(file, 'expected a SPIFFE trust bundle', parsed.error)
  for (const key of parsed.data.keys) {
    if (key.use === 'x509-svid') checkAuthority(file, key['x5c'], trustDomain)
    else if (key.use === 'jwt-svid' && typeof key['kid'] !== 'string')
      throw refused(file, 'expected a kid of each jwt-svid key')
  }
  return parsed.data
}

/** One certificate authority that speaks for this trust domain, if it says for which. */
function checkAuthority(file: string, x5c: unknown, trustDomain: string): void {
  const found = z.array(base64).length(1).safeParse(x5c)
  let certificate
  try {
    certificate = new X509Certificate(Buffer.from(found.data?.[0] ?? '', 'base64'))
  } catch (cause) {
    throw refused(file, 'expected one certificate in x5c of each x509-svid key', cause)
  }
  const name = certificate.subjectAltName ?? ''
  if (!certificate.ca) throw refused(file, 'expected certificate authorities')
  if (name.includes('URI:') && name !== `URI:${trustDomainId(trustDomain)}`)
    throw refused(file, `expected authorities of ${quote(trustDomain)}, saw ${quote(name)}`)
}

function refused(file: string, why: string, cause?: unknown): BrokerError {
  return new BrokerError('BUNDLE_FILE', `trust bundle ${quote(file)}: ${why}`, { cause })
}
