// The configuration file: strict JSON, every key shown in docs/config. Relative paths are relative to
// the file. Nothing here has a default that weakens anything.
import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { dirname, resolve } from 'node:path'
import { INSTALLATION_NAME, TRUST_DOMAIN } from '@bagcheck/policy'
import { z } from 'zod'
import { BrokerError, quote } from './error.ts'
import type { EngineConfig } from './store/engine.ts'

const path = z.string().min(1).max(4096)

const listenSchema = z.union([
  z.strictObject({
    host: z.string().min(1).max(253),
    port: z.int().min(0).max(65_535),
    /** PEM files; null is accepted on loopback only. */
    tls: z.strictObject({ cert: path, key: path }).nullable(),
  }),
  z.strictObject({ socket: path }),
])

const configSchema = z.strictObject({
  installation: z.string().regex(INSTALLATION_NAME),
  issuer: z.url({ protocol: /^https?$/ }).max(512),
  stateDir: path,
  listen: listenSchema,
  adminSocket: path,
  store: z.union([
    z.strictObject({ sqlite: path }),
    z.strictObject({ postgres: z.string().min(1).max(2048) }),
  ]),
  trustRoot: z.strictObject({
    pin: z
      .string()
      .regex(/^[0-9a-f]{64}$/, 'expected 64 hex digits, as "bagcheck policy pin root.json" prints'),
    chain: z.array(path).min(1).max(1024),
  }),
  logKey: path,
  decisionKey: path,
  spiffe: z
    .strictObject({
      /** Life of an authority that signs SVIDs. What it signs ends with it at the latest. */
      authorityTtlSeconds: z
        .int()
        .min(10)
        .max(366 * 86_400)
        .default(86_400),
      /** Trust bundles of other trust domains, as files that somebody keeps up to date. */
      federatesWith: z
        .array(z.strictObject({ trustDomain: z.string().regex(TRUST_DOMAIN), bundle: path }))
        .max(64)
        .default([]),
    })
    .prefault({}),
  /** Name of a crash point; the process kills itself there. For tests of crash safety only. */
  testingOnlyCrashAt: z.string().optional(),
})

/** What the file says. */
type Written = z.infer<typeof configSchema>

/** A checked configuration; every path is absolute. */
export type Config = Omit<Written, 'store'> & { readonly store: EngineConfig }

/**
 * Reads and checks a configuration file.
 * @throws {BrokerError} CONFIG_FILE – unreadable or not JSON; CONFIG_INVALID – a field is missing,
 * unknown or malformed; CONFIG_TLS_REQUIRED – plain HTTP anywhere but on loopback or a unix socket
 */
export function loadConfig(file: string): Config {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (cause) {
    throw new BrokerError('CONFIG_FILE', `expected a readable file ${quote(file)}`, { cause })
  }
  return parseConfig(text, dirname(resolve(file)))
}

/** As {@link loadConfig}, from text; `base` is where relative paths start. */
export function parseConfig(text: string, base: string): Config {
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch (cause) {
    // The cause could quote a database password.
    const position = cause instanceof SyntaxError ? /position \d+/.exec(cause.message)?.[0] : null
    throw new BrokerError('CONFIG_FILE', `expected JSON, saw an error at ${position ?? 'its end'}`)
  }
  const parsed = configSchema.safeParse(json)
  if (!parsed.success) {
    const issues = parsed.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`)
    throw new BrokerError('CONFIG_INVALID', `expected a broker configuration: ${issues.join('; ')}`)
  }
  const config = absolute(parsed.data, base)
  checkIssuer(config.issuer)
  checkTransport(config.listen)
  return config
}

function absolute(config: Written, base: string): Config {
  const at = (file: string): string => resolve(base, file)
  const { listen, store, trustRoot } = config
  const stateDir = at(config.stateDir)
  return {
    ...config,
    stateDir,
    adminSocket: at(config.adminSocket),
    logKey: at(config.logKey),
    decisionKey: at(config.decisionKey),
    trustRoot: { ...trustRoot, chain: trustRoot.chain.map(at) },
    spiffe: {
      ...config.spiffe,
      federatesWith: config.spiffe.federatesWith.map(({ trustDomain, bundle }) => ({
        trustDomain,
        bundle: at(bundle),
      })),
    },
    // The database belongs to the state, not to the configuration.
    store:
      'sqlite' in store
        ? { sqlite: { file: resolve(stateDir, store.sqlite) } }
        : { postgres: { url: store.postgres } },
    listen:
      'socket' in listen
        ? { socket: at(listen.socket) }
        : {
            ...listen,
            tls: listen.tls && { cert: at(listen.tls.cert), key: at(listen.tls.key) },
          },
  }
}

// RFC 8414 §2: no query, no fragment. A trailing slash would make two spellings of one issuer.
function checkIssuer(issuer: string): void {
  const url = new URL(issuer)
  const written = url.pathname === '/' ? url.origin : `${url.origin}${url.pathname}`
  if (written !== issuer || issuer.endsWith('/'))
    throw new BrokerError(
      'CONFIG_INVALID',
      `issuer: expected an origin with at most a path, no slash at its end, saw ${quote(issuer)}`,
    )
}

function checkTransport(listen: Config['listen']): void {
  if ('socket' in listen || listen.tls !== null || isLoopback(listen.host)) return
  throw new BrokerError(
    'CONFIG_TLS_REQUIRED',
    `listen.tls: expected a certificate to listen on ${quote(listen.host)}; plain HTTP is for loopback and unix sockets`,
  )
}

// Names are not looked up: "localhost" may be anything in a hosts file.
function isLoopback(host: string): boolean {
  return isIP(host) === 4 ? host.startsWith('127.') : host === '::1'
}
