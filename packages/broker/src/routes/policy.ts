import { MAX_WAIT_SECONDS, type PolicyRequest, type RootChain } from '@bagcheck/api'
import type { Handler } from '../app.ts'
import { BrokerError } from '../error.ts'
import { json, jsonText } from './answer.ts'

export const policy: Handler = async ({ broker, query, headers, signal }) => {
  const wait = Math.min(Number(query['wait'] ?? 0), MAX_WAIT_SECONDS)
  const known = /^"([0-9a-f]{64})"$/.exec(headers.get('if-none-match') ?? '')?.[1]
  if (known !== undefined && wait > 0)
    await broker.policy.waitForChange(known, wait * 1000, signal())
  const installed = broker.policy.current()
  if (installed === null) throw new BrokerError('NOT_FOUND', 'no policy is installed yet')
  const etag = { etag: `"${installed.sha256}"`, 'cache-control': 'no-cache' }
  if (installed.sha256 === known) return new Response(null, { status: 304, headers: etag })
  return jsonText(installed.response, { headers: etag })
}

export const publishPolicy: Handler = async ({ broker, body }) => {
  const now = new Date(broker.clock.nowMs())
  const receipt = await broker.policy.publish(body as PolicyRequest, now)
  const { version, sha256, logIndex, known } = receipt
  if (!known) broker.logger.info({ version, sha256, logIndex }, 'policy installed')
  return json(receipt)
}

export const rootChain: Handler = ({ broker }) => {
  const answer: RootChain = {
    pin: broker.config.trustRoot.pin,
    version: broker.root.version,
    rootChain: [...broker.rootChain],
  }
  return json(answer)
}
