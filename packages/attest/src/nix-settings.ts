// The effective settings of the Nix that is installed here, as it states them itself.
import { execFile } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { UNKNOWN, type Fact } from './closure-predicate.ts'
import { publicUrl } from './public-url.ts'
import type { JsonObject } from './strict-json.ts'

export interface NixProgramOptions {
  /** Program to run; default `nix` from the search path. */
  readonly program?: string
  readonly environment?: NodeJS.ProcessEnv
  /** For each call; default 10 seconds. */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

/** Settings that decide what a build could reach and whose results were taken. */
export interface NixSettings {
  readonly sandbox: Fact<boolean>
  readonly sandboxFallback: Fact<boolean>
  readonly substituters: Fact<readonly string[]>
  readonly trustedPublicKeys: Fact<readonly string[]>
  readonly requireSigs: Fact<boolean>
  readonly nixVersion: Fact<string>
}

const DEFAULT_TIMEOUT_MS = 10_000
const MAX_OUTPUT_BYTES = 4 * 1024 * 1024
const STATE_DIR = '/nix/var/nix'

/**
 * Asks Nix. What it does not answer in time, or not in the form expected, is unknown.
 *
 * With a daemon the settings are those of its client, which the daemon need not share: the source
 * says so.
 */
export async function readNixSettings(options: NixProgramOptions): Promise<NixSettings> {
  // `show-config` is called `config show` since Nix 2.20, and kept as an alias by some versions.
  const text =
    (await runNix(['show-config', '--json'], options)) ??
    (await runNix(['config', 'show', '--json'], options))
  const settings = parseSettings(text)
  const source = `nix show-config${usesDaemon(settings) ? ', client of a daemon' : ''}`
  const version = await runNix(['--version'], options)
  return {
    sandbox: sandboxFact(settings['sandbox'], source),
    sandboxFallback: booleanFact(settings['sandbox-fallback'], source),
    substituters: listFact(settings['substituters'], source, publicUrl),
    trustedPublicKeys: listFact(settings['trusted-public-keys'], source, (key) => key),
    requireSigs: booleanFact(settings['require-sigs'], source),
    nixVersion: versionFact(version),
  }
}

function parseSettings(text: string | undefined): JsonObject {
  if (text === undefined) return {}
  let parsed: unknown
  try {
    // Not the strict parser: Nix writes limits beyond 2^53, which are of no interest here.
    parsed = JSON.parse(text)
  } catch {
    // Not the JSON of any Nix: then nothing is known.
    return {}
  }
  if (typeof parsed !== 'object' || parsed === null) return {}
  return Object.fromEntries(
    Object.entries(parsed).map(([name, setting]: [string, unknown]) => [name, valueOf(setting)]),
  )
}

function valueOf(setting: unknown): unknown {
  return typeof setting === 'object' && setting !== null && 'value' in setting
    ? setting.value
    : undefined
}

// Nix's own rule for the store "auto": its own if it can write it, else the daemon's.
function usesDaemon(settings: JsonObject): boolean {
  const store = settings['store']
  if (store === 'local') return false
  if (store !== 'auto' && store !== '') return true
  try {
    accessSync(STATE_DIR, constants.R_OK | constants.W_OK)
    return false
  } catch {
    // Not writable, or not there: a client either way.
    return true
  }
}

// "relaxed" lets derivations opt out, so it is no sandbox to rely on.
function sandboxFact(value: unknown, source: string): Fact<boolean> {
  return booleanFact(value === 'relaxed' ? false : value, source)
}

function booleanFact(value: unknown, source: string): Fact<boolean> {
  return typeof value === 'boolean' ? { value, source } : UNKNOWN
}

function listFact(
  value: unknown,
  source: string,
  shown: (entry: string) => string,
): Fact<readonly string[]> {
  if (!Array.isArray(value) || !value.every((entry) => typeof entry === 'string')) return UNKNOWN
  return { value: value.map(shown), source }
}

function versionFact(text: string | undefined): Fact<string> {
  const version = /^nix \([^)]*\) (\S+)$/m.exec(text ?? '')?.[1]
  return version === undefined ? UNKNOWN : { value: version, source: 'nix --version' }
}

function runNix(args: readonly string[], options: NixProgramOptions): Promise<string | undefined> {
  const { program = 'nix', environment = process.env, timeoutMs, signal } = options
  return new Promise((resolve, reject) => {
    execFile(
      program,
      ['--extra-experimental-features', 'nix-command', ...args],
      {
        env: environment,
        timeout: timeoutMs ?? DEFAULT_TIMEOUT_MS,
        killSignal: 'SIGKILL',
        maxBuffer: MAX_OUTPUT_BYTES,
        ...(signal === undefined ? {} : { signal }),
      },
      (error, stdout) => {
        if (signal?.aborted === true) reject(signal.reason as Error)
        else resolve(error === null ? stdout : undefined)
      },
    )
  })
}
