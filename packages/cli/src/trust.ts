// What a command is told to trust: the digest of version 1 of a trust root, as such or as the file.
import { parseSha256, type Sha256 } from '@bagcheck/nix'
import { trustRootDigest, verifyTrustRootChain, type TrustRoot } from '@bagcheck/policy'
import type { Client } from '@bagcheck/api'
import { CliError } from './error.ts'
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

/** The broker's trust root, verified against what `--trust` names. */
export async function fetchTrustRoot(client: Client, trust: string, now: Date): Promise<TrustRoot> {
  const pin = await readPin(trust)
  const { rootChain } = await client.rootChain()
  return verifyTrustRootChain(rootChain, { pin, now })
}
