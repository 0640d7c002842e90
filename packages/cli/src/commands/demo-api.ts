import { command } from '../command.ts'
import { startRelyingParty } from '../demo/relying-party.ts'

export const demoApi = command({
  summary: "Run the demo's relying party alone, until interrupted.",
  description: [
    'An HTTP API on a free loopback port that accepts access tokens of one issuer for one audience, ' +
      'checked by a stock OAuth client through discovery and JWKS. Prints one JSON line per call.',
  ],
  options: {
    issuer: { type: 'string', value: 'URL', required: true, help: 'issuer of the tokens' },
    audience: { type: 'string', value: 'URL', required: true, help: 'the audience it answers for' },
  },
  run: async ({ print, signal }, { issuer, audience }) => {
    const onCall = (call: object): void => print(JSON.stringify({ event: 'call', ...call }))
    const party = await startRelyingParty({ issuer, audience, onCall })
    print(JSON.stringify({ event: 'ready', url: party.url }))
    await new Promise((resolve) => signal.addEventListener('abort', resolve))
    await party.close()
  },
})
