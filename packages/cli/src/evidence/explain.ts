// Says in plain English why a token was issued, from a bundle that was verified.
import { storePathName, parseStorePath } from '@bagcheck/nix'
import type { VerifiedBundle } from './verify.ts'

const time = (seconds: number): string => new Date(seconds * 1000).toISOString()

/** The story of one token, a sentence a line. */
export function explainBundle(bundle: VerifiedBundle): string[] {
  const { token, decision, enrolment, evidence, checkpoint } = bundle
  const { unit, roots, processes } = evidence.facts
  const root = roots.find(({ closureDigest }) => closureDigest === decision.closureDigest)
  const name = storePathName(parseStorePath(decision.root))
  const count = processes.length === 1 ? 'one process' : `${processes.length} processes`
  const mapped = new Set(
    processes.flatMap(({ executable, files }) => [executable, ...files].map(({ path }) => path)),
  )
  return [
    `Token ${token.jti} was issued at ${time(token.iat)} for ${decision.ttlSeconds} seconds,`,
    `to ${token.sub}, for ${token.aud} and nobody else.`,
    '',
    `Because role ${decision.role} may have it under policy version ${decision.policyVersion}, ` +
      `signed by ${bundle.policySigners.join(' and ')}.`,
    `Because node ${decision.node} (class ${enrolment.nodeClass}), enrolled at ` +
      `${time(enrolment.enrolledAt)} with a join token, signed evidence about unit ${unit.name}:`,
    `  it consisted of ${count}, which mapped ${mapped.size} executable files,`,
    `  every one of them a file of ${name}, and had been started by ${unit.contract?.source ?? '?'}.`,
    `Because the bag is the approved one: closure ${decision.closureDigest}`,
    `  (${bundle.paths} store paths, ${bundle.files} files), attested by key ${bundle.attestationSigner};`,
    `  its content was checked on the node (${decision.strength}), last in full at ` +
      `${time(root?.lastFullAt ?? 0)}.`,
    ...(decision.successorOf === null
      ? []
      : [`  It is the approved successor of closure ${decision.successorOf}.`]),
    ...(decision.keyThumbprint === null
      ? ['The token is a bearer token: whoever holds it can use it.']
      : [`The token is bound to the key ${decision.keyThumbprint} of that very process.`]),
    `Tier ${decision.tier}: the proof rests on the word of the agent, which runs as root on that node.`,
    '',
    `The decision is entry ${bundle.leafIndex} of the log ${checkpoint.origin} (size ` +
      `${checkpoint.size}); policy, attestation and enrolment are in it too.`,
    `Evaluated again now from the same facts, the policy gives the same answer.`,
  ]
}
