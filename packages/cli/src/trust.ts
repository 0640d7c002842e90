// What a command is told to trust: the digest of version 1 of a trust root, as such or as the file.
import { parseSha256, type Sha256 } from '@bagcheck/nix'
import {
  trustRootDigest,
  verifyTrustRootChain,
  type TrustRole,
  type TrustRoot,
} from '@bagcheck/policy'
import type { Client } from '@bagcheck/api'
import { CliError, EXIT } from './error.ts'
import { readSmallText } from './files.ts'

export const TRUST_OPTION = {
  trust: {
    type: 'string',
    value: 'ROOT',
    environment: 'BAGCHECK_TRUST',
    help: 'version 1 of the trust root: its file, or its digest as sha256:…',
  },
} as const

/** The pinned digest that `--trust` names. @throws {CliError} FILE_UNREADABLE, USAGE */
export async function readPin(trust: string): Promise<Sha256> {
  if (trust.startsWith('sha256:')) {
    if (!/^sha256:[0-9a-f]{64}$/.test(trust))
      throw new CliError(
        'USAGE',
        `--trust sha256: takes 64 hex digits, not ${JSON.stringify(trust)}`,
      )
    return parseSha256(trust.slice('sha256:'.length))
  }
  return trustRootDigest(await readSmallText(trust))
}

export const SIGNER_OPTION = {
  trust: {
    type: 'string',
    value: 'FILE',
    multiple: true,
    help: 'the trust root, from version 1 on: refuse a key that is not of the role',
  },
} as const

/**
 * The keys of a role, as the files of the trust root say, or undefined without files. Nothing is pinned: it
 * saves people from signing with the wrong key, and the broker checks anew.
 * @throws {CliError} REFUSED – `keyId` is none of them; {PolicyError} TRUST_ROOT_*
 */
export async function checkSigner(
  files: readonly string[],
  role: TrustRole,
  keyId: string,
  now: Date,
): Promise<TrustRoot['roles'][TrustRole] | undefined> {
  const texts = await Promise.all(files.map(readSmallText))
  const [first] = texts
  if (first === undefined) return undefined
  const root = verifyTrustRootChain(texts, { pin: trustRootDigest(first), now })
  const keys = root.roles[role]
  if (keys.keys.some((key) => key.keyId === keyId)) return keys
  const other = Object.entries(root.roles).find(([, of]) =>
    of.keys.some((key) => key.keyId === keyId),
  )
  const seen = other === undefined ? 'a key that it does not name' : `a key of role ${other[0]}`
  throw new CliError('REFUSED', `expected a ${role} key of the trust root, saw ${seen}`, {
    exit: EXIT.refused,
  })
}

/** The broker's trust root, verified against what `--trust` names. */
export async function fetchTrustRoot(client: Client, trust: string, now: Date): Promise<TrustRoot> {
  const pin = await readPin(trust)
  const { rootChain } = await client.rootChain()
  return verifyTrustRootChain(rootChain, { pin, now })
}
