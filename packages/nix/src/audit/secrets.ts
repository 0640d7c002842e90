// Secrets in text, by forms that nothing else has. Precision comes before completeness: a report full of false
// alarms is not read. Every pattern is bounded, so that time is in proportion to the text whatever it holds.
import { createPrivateKey, createPublicKey } from 'node:crypto'

const KEYED_NAME =
  /(?:pass(?:word|wd|phrase)|secret|token|api_?key|private_?key|access_?key|credentials?)$/i
const ORDINARY =
  /^(?:[/$@%{<~].*|.*[\s${}<>].*|[a-z]+:\/\/.*|true|false|null|none|yes|no|[0-9]{1,7})$/is
const PKCS8_ED25519 = Buffer.from('302e020100300506032b657004220420', 'hex')

const PATTERNS: readonly (readonly [what: string, pattern: RegExp])[] = [
  [
    'a private key',
    /-----BEGIN (?:[A-Z0-9]{1,10} ){0,3}PRIVATE KEY(?: BLOCK)?-----(?:\s|\\n){1,4}[A-Za-z0-9+/=]{16}/,
  ],
  ['an age secret key', /\bAGE-SECRET-KEY-1[0-9A-Z]{58}\b/],
  ['a GitHub token', /\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9_]{60,100})\b/],
  ['a GitLab token', /\bgl(?:pat|rt|dt)-[A-Za-z0-9_-]{20}/],
  ['a Slack token', /\bxox[abeprs]-[0-9]{8,14}-[A-Za-z0-9-]{12,100}/],
  ['an npm token', /\bnpm_[A-Za-z0-9]{36}\b/],
  ['a PyPI token', /\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,200}/],
  ['a Stripe key', /\b[rs]k_live_[0-9A-Za-z]{20,100}\b/],
  ['a Google API key', /\bAIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])/],
  ['a JSON web token', /(?<![\w-])eyJ[\w-]{10,1000}\.eyJ[\w-]{10,2000}\.[\w-]{20,1000}/],
]
// The documentation of AWS uses AKIAIOSFODNN7EXAMPLE.
const AWS_KEY = /\b(?:AKIA|ASIA)(?![0-9A-Z]{9}EXAMPLE)[0-9A-Z]{16}\b/
const NIX_KEY = /(?<=[\w.-]):([A-Za-z0-9+/]{86}==)/g
const MAX_NIX_KEYS = 100
const CRYPT =
  /\$(?:2[abxy]\$[0-9]{2}\$[./A-Za-z0-9]{53}|(?:1|5|6|7|y|gy)\$[^\s:"'\\$]{1,64}(?:\$[^\s:"'\\$]{1,64})?\$[./A-Za-z0-9]{22,90})/

/** What secrets `text` holds, as "a GitHub token"; empty for none. Never the secret. */
export function findSecrets(text: string): string[] {
  const found = PATTERNS.filter(([, pattern]) => pattern.test(text)).map(([what]) => what)
  if (AWS_KEY.test(text)) found.push('an AWS access key')
  let candidates = 0
  for (const [, base64 = ''] of text.matchAll(NIX_KEY)) {
    if ((candidates += 1) > MAX_NIX_KEYS) break // each costs a curve operation
    if (!isEd25519Secret(Buffer.from(base64, 'base64'))) continue
    found.push('a Nix signing key')
    break
  }
  return found
}

/** Whether `text` holds the hash of a password as in `/etc/shadow`. */
export function hasPasswordHash(text: string): boolean {
  return CRYPT.test(text)
}

/** Whether a value of that name is likely to be a secret: a word, and not a path, reference or switch. */
export function isLikelySecret(name: string, value: string): boolean {
  if (!KEYED_NAME.test(name) || value.length < 8 || value.length > 500) return false
  return !ORDINARY.test(value) && new Set(value).size >= 5
}

/** Nix writes secret key and signature alike; only of a key is the second half the public key of the first. */
function isEd25519Secret(bytes: Buffer): boolean {
  if (bytes.length !== 64) return false
  const der = Buffer.concat([PKCS8_ED25519, bytes.subarray(0, 32)])
  const secret = createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
  const spki = createPublicKey(secret).export({ format: 'der', type: 'spki' })
  return spki.subarray(-32).equals(bytes.subarray(32))
}
