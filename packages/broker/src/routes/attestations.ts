import type { AttestationRequest } from '@bagcheck/api'
import { parseSha256 } from '@bagcheck/nix'
import type { Handler } from '../app.ts'
import { BrokerError } from '../error.ts'
import { json } from './answer.ts'

export const submitAttestation: Handler = async ({ broker, body }) => {
  const nowSeconds = Math.floor(broker.clock.nowMs() / 1000)
  const receipt = await broker.closures.submit(body as AttestationRequest, nowSeconds)
  const { root, closureDigest, logIndex, known } = receipt
  if (!known) broker.logger.info({ root, closureDigest, logIndex }, 'attestation taken in')
  return json(receipt)
}

export const attestation: Handler = async ({ broker, params }) => {
  const digest = parseSha256(params['digest'] ?? '')
  const found = await broker.closures.read(digest)
  if (found === undefined)
    throw new BrokerError('NOT_FOUND', `no attestation of a closure ${digest}`)
  return json(found)
}
