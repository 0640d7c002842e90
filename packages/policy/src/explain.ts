// Plain English about decisions.
import type { ApprovalContent } from './approval.ts'
import type { Facts } from './facts.ts'

const BINDINGS: Readonly<Record<ApprovalContent['profile']['binding'], string>> = {
  dpop: "The token is bound to the workload's key (DPoP).",
  certificate: "The certificate is of the workload's key: only who holds that key can use it.",
  none: 'The token is a bearer token: the profile of this audience says so.',
}

/** Why a token was issued, one sentence a line, in the order of the checks. */
export function explainApproval(approval: ApprovalContent, facts: Facts): readonly string[] {
  const { unit, processes } = facts
  const files = new Set(
    processes.flatMap(({ executable, files: mapped }) =>
      [executable, ...mapped].map(({ path }) => path),
    ),
  )
  const root = facts.roots.find(({ closureDigest }) => closureDigest === approval.closureDigest)
  const checked = (at: number): string => new Date(at * 1000).toISOString()
  return [
    `Policy version ${approval.policyVersion} gives role ${approval.role} tokens for ${approval.audience}.`,
    `The ${unit.launcher} unit ${unit.name} is that role's: ${processes.length} process${processes.length === 1 ? '' : 'es'}, started with ${[unit.contract?.executable, ...(unit.contract?.arguments ?? [])].join(' ')}.`,
    `Every file it executes (${files.size}) is a file of ${approval.root}, closure ${approval.closureDigest}, which the policy approves.`,
    ...(approval.successorOf === null
      ? []
      : [`That closure is the approved successor of ${approval.successorOf}.`]),
    ...(approval.hostObjects.length === 0
      ? []
      : [
          `${approval.hostObjects.length} files of the host's approved system were in use, allowed by digest: ${approval.hostObjects.map(({ path, sha256 }) => `${path} (${sha256})`).join(', ')}.`,
        ]),
    ...(approval.jit
      ? ['It has executable memory without a file, which the policy allows for this interpreter.']
      : []),
    `The store content was checked as ${approval.strength}${root ? ` at ${checked(root.checkedAt)}, in full at ${checked(root.lastFullAt)}` : ''}.`,
    `The proof is of tier ${approval.tier}${approval.tier === 0 ? ': the word of the agent on that host' : ''}.`,
    BINDINGS[approval.profile.binding],
  ]
}
