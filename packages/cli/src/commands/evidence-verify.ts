import { MAX_EVIDENCE_BUNDLE_BYTES } from '@bagcheck/api'
import { command } from '../command.ts'
import { EXIT } from '../error.ts'
import { explainBundle } from '../evidence/explain.ts'
import { verifyEvidenceBundle } from '../evidence/verify.ts'
import { readInput } from '../files.ts'
import { readPin, TRUST_OPTION } from '../trust.ts'

export const evidenceVerify = command({
  summary: 'Verify an evidence bundle offline and say why its token was issued.',
  positionals: 'FILE',
  description: [
    'Needs no network and no broker. Checks every signature, digest and log proof, and evaluates the ' +
      'policy again. Without --trust the file can only be compared with itself: it says "consistent, not ' +
      'authenticated" and exits with 1.',
  ],
  options: TRUST_OPTION,
  examples: ['bagcheck evidence verify token.evidence.json --trust sha256:…'],
  run: async ({ result }, { trust }, [file = '']) => {
    const pin = trust === undefined ? null : await readPin(trust)
    const bytes = await readInput(file, MAX_EVIDENCE_BUNDLE_BYTES)
    const bundle = verifyEvidenceBundle(bytes, { trust: pin })
    const { authenticated, token, decision, installation } = bundle
    const verdict = authenticated
      ? `VERIFIED against trust root sha256:${bundle.pin} of installation ${installation}.`
      : `CONSISTENT, NOT AUTHENTICATED: no trust root was given (--trust); whoever made the file may have made all of it. It claims trust root sha256:${bundle.pin}.`
    result({ authenticated, installation, pin: bundle.pin, token, decision }, [
      verdict,
      '',
      ...explainBundle(bundle),
    ])
    return authenticated ? EXIT.ok : EXIT.refused
  },
})
