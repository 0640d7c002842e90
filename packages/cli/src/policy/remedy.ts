// What would make a denied request pass, by reason. Advice for people; policy decides.
const REMEDIES: Readonly<Record<string, string>> = {
  POLICY_EXPIRED: 'sign and publish the next policy version',
  POLICY_NOT_YET_VALID: "wait until the policy's notBefore, or check the broker's clock",
  UNIT_NONE: 'start the service with bagcheck exec or as a systemd unit',
  ROLE_UNKNOWN: 'name the unit in a role of the policy',
  ROLE_AMBIGUOUS: 'make the units of the roles differ',
  AUDIENCE_NOT_ALLOWED: 'add the audience to the role',
  NODE_CLASS: "add the node's class to the role",
  UID: "start the unit as the role's uid",
  KEY_REQUIRED: 'let the workload bring a DPoP proof for its key',
  CLOSURE_NOT_APPROVED:
    'deploy an approved closure, or approve this one in the next policy version',
  CLOSURE_REVOKED: 'deploy a closure that is not revoked',
  CLOSURE_EXPIRED: 'deploy a newer closure, or extend notAfter in the next policy version',
  SUCCESSOR_EXPIRED: 'deploy the successor',
  ATTESTATION_MISSING: 'submit the attestation with "bagcheck attest submit"',
  ROOT_MISMATCH: 'approve the root path of this closure in the next policy version',
  SIGNER_NOT_ALLOWED: 'have the closure attested by a signer of the role',
  BUILD_FACT: 'build the closure with the settings that the role demands',
  BUILD_FACT_UNKNOWN: 'attest where the setting can be learnt (see "bagcheck attest --help")',
  CONTENT_MISMATCH: 'restore the store path: nix-store --repair-path PATH',
  STRENGTH_TOO_LOW: 'wait for the next full verification of the closure',
  FULL_CHECK_TOO_OLD: 'let the agent verify the closure in full again',
  FILE_NOT_IN_CLOSURE: 'remove what loads the foreign file, and restart the unit',
  FILE_NOT_STORE_FILE: 'run the file from the store instead of a copy',
  FILE_UNLINKED: 'restart the unit',
  TEXT_MODIFIED: 'restart the unit; find out what altered its memory',
  JIT_NOT_ALLOWED: 'run without JIT, or allow it for this runtime by digest in the policy',
  JIT_LIMIT: 'raise maxRegions or maxBytes of the allowance in the policy',
  CONTRACT_MISSING: 'start the service with bagcheck exec or as a systemd unit',
  CONTRACT_BROKEN: 'restart the unit: its main process has executed something else',
  ENTRY_MISMATCH: "start the role's entry executable",
  INTERPRETER_WITHOUT_CONTRACT: 'start the interpreter itself with bagcheck exec',
  ARGUMENTS_MISMATCH: 'start the unit with the arguments that the role names',
  SCRIPT_NOT_IN_CLOSURE: 'start the script of the approved closure',
}

/** What would make a request pass that was denied with `code`, where there is something to say. */
export function remedy(code: string): string | undefined {
  return REMEDIES[code]
}
