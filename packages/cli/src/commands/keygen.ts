import { formatVerifyingKey, generateSigningKey } from '@bagcheck/attest'
import { command } from '../command.ts'
import { writeOutput, writeSecret } from '../files.ts'

export const keygen = command({
  summary: 'Make an ECDSA P-256 signing key.',
  positionals: 'FILE',
  description: [
    'Writes the private key to FILE (PKCS#8 PEM, mode 0600, never over a file that is there, in a ' +
      'directory that is) and the public key beside it with the ending .pub.',
  ],
  examples: ['bagcheck keygen keys/ci.pem'],
  run: async ({ result }, _values, [file = '']) => {
    const { signing, pem } = generateSigningKey()
    const publicFile = `${file.replace(/\.pem$/, '')}.pub`
    await writeSecret(file, pem)
    await writeOutput(publicFile, formatVerifyingKey(signing))
    result({ keyId: signing.keyId, file, publicFile }, [
      `private key  ${file}`,
      `public key   ${publicFile}`,
      `key id       ${signing.keyId}`,
    ])
  },
})
