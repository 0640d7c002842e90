import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { ApiError, TEXT_LIMITS } from '@bagcheck/api'
import { BROKER_OPTIONS, openBroker } from '../broker-access.ts'
import { command } from '../command.ts'
import { CliError, EXIT } from '../error.ts'
import { ifThere, readInput, readSmallText } from '../files.ts'

const SUFFIX = '.manifest'

export const attestSubmit = command({
  summary: 'Bring the attestations in a directory to the broker.',
  positionals: 'DIR',
  description: [
    'The broker keeps one only if it is signed by a signer that policy names and if manifest and file ' +
      'list are those that were signed.',
  ],
  options: BROKER_OPTIONS,
  examples: ['bagcheck attest submit out/ --broker https://broker.example.org'],
  run: async ({ result, progress }, values, [folder = '']) => {
    const client = await openBroker(values)
    const names = ((await ifThere(readdir(folder))) ?? [])
      .filter((name) => name.endsWith(SUFFIX))
      .map((name) => name.slice(0, -SUFFIX.length))
      .toSorted()
    if (names.length === 0)
      throw new CliError('NOT_FOUND', `no attestation in ${folder}; "bagcheck attest" writes them`)
    const receipts = []
    for (const name of names) {
      progress(`submitting ${name}`)
      const base = join(folder, name)
      const manifest = await readInput(`${base}.manifest`, TEXT_LIMITS.manifest)
      const files = await readInput(`${base}.files`, TEXT_LIMITS.files)
      receipts.push(
        await client
          .submitAttestation({
            bundle: await readSmallText(`${base}.sigstore.json`),
            manifest: manifest.toString('utf8'),
            files: files.toString('utf8'),
          })
          .catch(explainSigner),
      )
    }
    result(
      { attestations: receipts },
      receipts.map(
        ({ root, closureDigest, logIndex, known }) =>
          `${root}\n  closure ${closureDigest}, entry ${logIndex} in the log${known ? ' (known)' : ''}`,
      ),
    )
  },
})

function explainSigner(error: unknown): never {
  if (!(error instanceof ApiError) || error.problem?.code !== 'SIGNATURE_INVALID') throw error
  const hint = 'is the key that signed it among the signers of the policy in force?'
  throw new CliError('REFUSED', `${error.message}; ${hint}`, {
    cause: error,
    exit: EXIT.refused,
    detail: error.problem,
  })
}
