// Says in plain English why a token was issued, from a bundle that was verified.
import { explainApproval } from '@bagcheck/policy'
import type { VerifiedBundle } from './verify.ts'

const time = (seconds: number): string => new Date(seconds * 1000).toISOString()

/** The story of one token, a sentence a line. */
export function explainBundle(bundle: VerifiedBundle): string[] {
  const { token, decision, enrolment, evidence, checkpoint } = bundle
  return [
    `Token ${token.jti} was issued at ${time(token.iat)} for ${decision.ttlSeconds} seconds,`,
    `to ${token.sub}, for ${token.aud} and nobody else.`,
    '',
    ...explainApproval(bundle.approval, evidence.facts),
    '',
    `The policy is signed by ${bundle.policySigners.join(' and ')}.`,
    `The closure (${bundle.paths} store paths, ${bundle.files} files) is attested by key ${bundle.attestationSigner}.`,
    `The facts are signed by node ${decision.node} (class ${enrolment.nodeClass}), enrolled at ` +
      `${time(enrolment.enrolledAt)} with a join token.`,
    `The decision is entry ${bundle.leafIndex} of the log ${checkpoint.origin} (size ` +
      `${checkpoint.size}); policy, attestation and enrolment are in it too.`,
    'Evaluated again now from the same facts, the policy gives the same answer.',
  ]
}
