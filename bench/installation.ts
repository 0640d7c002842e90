// A whole installation in a directory: keys, trust root, a signed policy of any size, join tokens and the
// broker's configuration. All keys are made here and are TEST keys.
import { randomBytes } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import {
  canonicalize,
  formatEnvelope,
  formatVerifyingKey,
  generateSigningKey,
  sha256Hex,
  type SigningKey,
} from '@bagcheck/attest'
import { generateNoteKey } from '@bagcheck/log'
import {
  compilePolicy,
  createJoinToken,
  createPolicyEnvelope,
  createTrustRoot,
  trustRootDigest,
  verifyTrustRootChain,
  type SignedPolicy,
  type TrustRoot,
} from '@bagcheck/policy'
import { policyText, SERVICE_UID } from '../packages/testkit/src/index.ts'
import { effort } from './budget.ts'
import { storePath, type Attested } from './closures.ts'

export const INSTALLATION = 'bench'
export const AUDIENCE = 'https://api.bench.test'
/** Its tokens need no key, and live a shorter time. */
export const BEARER_AUDIENCE = 'https://reports.bench.test'
export const BEARER_TTL_SECONDS: number = effort(300, 5)
/** Every service runs as this user. */
export const UID: number = SERVICE_UID
const NODE_CLASS = 'bench'
const LOG_ORIGIN = 'bench-log.test'

/** Keys, trust root and services of one installation. */
export interface Installation<T extends Attested = Attested> {
  readonly directory: string
  /** Digest of version 1 of the trust root. */
  readonly pin: string
  readonly root: TrustRoot
  readonly services: readonly T[]
  /** A policy with so many approved roots, evenly over its roles; the first roles are those of `services`. */
  policy(size: { roots: number; roles: number }): SignedPolicy
  joinToken(): string
  /** Writes a configuration of a broker, or of another replica with the first one's secrets. */
  brokerConfig(name: string, options: BrokerOptions): string
}

export interface BrokerOptions {
  readonly port: number
  readonly issuer: string
  readonly store: { readonly sqlite: string } | { readonly postgres: string }
}

const iso = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+/, '')
const DAY_MS = 86_400_000

/** Makes an installation in `directory`, with the services that CI's key attests. */
export function createInstallation<T extends Attested>(
  directory: string,
  attestAll: (ci: SigningKey) => readonly T[],
): Installation<T> {
  const now = Date.now()
  const [rootKey, policyKey, enrolmentKey, brokerKey, ci] = keys()
  const logKey = generateNoteKey(LOG_ORIGIN)
  const role = (name: string, key: SigningKey) => ({ threshold: 1, keys: [{ name, key }] })
  const rootText = formatEnvelope(
    createTrustRoot(
      {
        installation: INSTALLATION,
        version: 1,
        expires: iso(now + 365 * DAY_MS),
        prev: null,
        roles: {
          root: role('root', rootKey.signing),
          policy: role('policy', policyKey.signing),
          approvals: role('policy', policyKey.signing),
          enrolment: role('enrolment', enrolmentKey.signing),
          broker: role('broker', brokerKey.signing),
        },
        log: { origin: LOG_ORIGIN, keys: [logKey.vkey] },
      },
      [rootKey.signing],
    ),
  )
  const pin = trustRootDigest(rootText)
  const secret = (name: string, text: string): void =>
    writeFileSync(join(directory, name), text, { mode: 0o600 })
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  secret('broker.pem', brokerKey.pem)
  secret('log.key', `${logKey.secretKey}\n`)
  writeFileSync(join(directory, 'root.json'), rootText)
  const attested = attestAll(ci.signing)
  return {
    directory,
    pin,
    root: verifyTrustRootChain([rootText], { pin, now: new Date(now) }),
    services: attested,
    policy: (size) => {
      const json = policyJson(attested, ci.signing, size, iso(now + 30 * DAY_MS))
      const envelope = createPolicyEnvelope(json, null, [policyKey.signing])
      return { json, envelope: formatEnvelope(envelope) }
    },
    joinToken: () => {
      const token = {
        installation: INSTALLATION,
        tokenId: randomBytes(16).toString('hex'),
        nodeClass: NODE_CLASS,
        notBefore: iso(now - 60_000),
        expires: iso(now + DAY_MS),
        nodeExpiresSeconds: 7 * 86_400,
      }
      return formatEnvelope(createJoinToken(token, enrolmentKey.signing))
    },
    brokerConfig: (name, { port, issuer, store }) => {
      const config = {
        installation: INSTALLATION,
        issuer,
        stateDir: `state-${name}`,
        listen: { host: '127.0.0.1', port, tls: null },
        adminSocket: `${name}.sock`,
        store,
        trustRoot: { pin, chain: ['root.json'] },
        logKey: 'log.key',
        decisionKey: 'broker.pem',
      }
      const file = join(directory, `${name}.json`)
      writeFileSync(file, JSON.stringify(config))
      return file
    },
  }
}

type KeyPair = ReturnType<typeof generateSigningKey>

function keys(): [KeyPair, KeyPair, KeyPair, KeyPair, KeyPair] {
  const pair = generateSigningKey
  return [pair(), pair(), pair(), pair(), pair()]
}

/** Compiles the policy of one role as people write it, and repeats that role. */
function policyJson(
  services: readonly Attested[],
  signer: SigningKey,
  { roots, roles }: { roots: number; roles: number },
  expires: string,
): string {
  const [first] = services
  if (first === undefined || roots % roles !== 0)
    throw new TypeError('expected a service, and as many roots in each role')
  const text = policyText({
    installation: INSTALLATION,
    expires,
    role: first.name,
    nodeClass: NODE_CLASS,
    executable: first.entry.executable,
    script: first.entry.script,
    arguments: first.entry.arguments,
    audiences: {
      [AUDIENCE]: { profile: 'api' },
      [BEARER_AUDIENCE]: {
        profile: 'plain',
        ttl: `{ min: 5, default: ${BEARER_TTL_SECONDS}, max: 300 }`,
      },
    },
    root: first.root,
    closure: first.closure.manifest.digest,
  })
  const { json } = compilePolicy(text, {
    file: 'policy.yaml',
    readFile: () => formatVerifyingKey(signer),
  })
  const compiled = JSON.parse(json) as { roles: Record<string, Record<string, unknown>> }
  const [template] = Object.values(compiled.roles)
  const repeated = Array.from({ length: roles }, (_, role) => {
    const service = services[role]
    const name = service?.name ?? `service-${role}`
    const fillers = Array.from({ length: roots / roles - (service ? 1 : 0) }, (_, version) => ({
      ...approvedRoot(storePath(`${name}-0.${version}`), sha256Hex(`${name}-0.${version}`)),
    }))
    const own = service ? [approvedRoot(service.root, service.closure.manifest.digest)] : []
    const unit = { launcher: 'bagcheck-exec', name }
    return [name, { ...template, unit, roots: [...fillers, ...own] }]
  })
  return canonicalize({ ...compiled, roles: Object.fromEntries(repeated) })
}

const approvedRoot = (root: string, closure: string) => ({
  root,
  closure,
  state: 'active',
  notAfter: null,
  audiences: null,
})
