import { parseEnvelope } from '@bagcheck/attest'
import { verifyPolicyAt, verifyTrustRootChain } from '@bagcheck/policy'
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
    const envelope = parseEnvelope(Buffer.from(answer.envelope))
    const { policy, sha256, signers } = verifyPolicyAt(
      { json: answer.policy, envelope },
      root,
      now(),
    )
    const names = signers.map((key) => root.keys.get(key.keyId)?.name ?? key.keyId)
    const lines = [
      `policy   version ${policy.version} for ${policy.installation}, until ${policy.expires}`,
      `sha256   ${sha256}`,
      `signed   by ${names.join(', ')}; entry ${answer.logIndex} in the log`,
    ]
    for (const [name, role] of Object.entries(policy.roles)) {
      lines.push('', `role ${name}: unit ${role.unit.launcher}:${role.unit.name}, uid ${role.uid}`)
      for (const [audience, { profile, ttlSeconds }] of Object.entries(role.audiences))
        lines.push(`  audience ${audience}: ${profile}, ${ttlSeconds.min} to ${ttlSeconds.max} s`)
      for (const { root: path, closure, state } of role.roots)
        lines.push(`  ${state} ${path}`, `    closure ${closure}`)
    }
    result({ version: policy.version, sha256, signers: names, policy }, lines)
  },
})
