import { verifyPolicyDocument, verifyTrustRootChain } from '@bagcheck/policy'
import { BROKER_OPTIONS, openBroker } from '../broker-access.ts'
import { command } from '../command.ts'
import { CliError } from '../error.ts'
import { readPin, TRUST_OPTION } from '../trust.ts'

export const policyShow = command({
  summary: "Show the broker's policy, verified against the trust root.",
  description: ['With --json the policy itself is printed, as it was signed.'],
  options: { ...BROKER_OPTIONS, ...TRUST_OPTION },
  run: async ({ now, result }, values) => {
    if (values.trust === undefined)
      throw new CliError('USAGE', 'which trust root? Give --trust ROOT, or set BAGCHECK_TRUST')
    const client = await openBroker(values)
    const answer = await client.policy()
    const root = verifyTrustRootChain(answer.rootChain, {
      pin: await readPin(values.trust),
      now: now(),
    })
    const signed = { json: answer.policy, envelope: answer.envelope }
    const { policy, sha256, signers } = verifyPolicyDocument(signed, root)
    const names = signers.map((keyId) => root.names.get(keyId) ?? keyId).toSorted()
    const lines = [
      `policy   version ${policy.version} for ${policy.installation}, until ${policy.expires}`,
      `sha256   ${sha256}`,
      `signed   by ${names.join(', ')}; entry ${answer.logIndex} in the log`,
    ]
    for (const [name, role] of policy.roles) {
      const { unit } = role
      const unitName = unit.launcher === 'oci' ? unit.container : unit.name
      lines.push('', `role ${name}: unit ${unit.launcher}:${unitName}, uid ${role.uid}`)
      for (const [audience, { profile, ttlSeconds }] of role.audiences)
        lines.push(`  audience ${audience}: ${profile}, ${ttlSeconds.min} to ${ttlSeconds.max} s`)
      for (const { root: path, closure, state } of role.roots)
        lines.push(`  ${state} ${path}`, `    closure ${closure}`)
    }
    result(
      {
        version: policy.version,
        sha256,
        signers: names,
        policy: JSON.parse(answer.policy) as unknown,
      },
      lines,
    )
  },
})
