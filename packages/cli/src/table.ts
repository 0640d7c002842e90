// All commands.
import { CLOSURE } from './closure/table.ts'
import { group, type Group } from './command.ts'
import { attestRoot } from './commands/attest.ts'
import { attestSubmit } from './commands/attest-submit.ts'
import { authorityActivate } from './commands/authority-activate.ts'
import { authorityList } from './commands/authority-list.ts'
import { authorityPrepare } from './commands/authority-prepare.ts'
import { authorityRevoke } from './commands/authority-revoke.ts'
import { authorityTaint } from './commands/authority-taint.ts'
import { decisions } from './commands/decisions.ts'
import { demo } from './commands/demo.ts'
import { demoApi } from './commands/demo-api.ts'
import { doctor } from './commands/doctor.ts'
import { evidenceExport } from './commands/evidence-export.ts'
import { evidenceVerify } from './commands/evidence-verify.ts'
import { exec } from './commands/exec.ts'
import { explain } from './commands/explain.ts'
import { keygen } from './commands/keygen.ts'
import { logCheckpoint } from './commands/log-checkpoint.ts'
import { logEntry } from './commands/log-entry.ts'
import { logProve } from './commands/log-prove.ts'
import { logVerify } from './commands/log-verify.ts'
import { nodeBan } from './commands/node-ban.ts'
import { nodeJoinToken } from './commands/node-join-token.ts'
import { nodeList } from './commands/node-list.ts'
import { policyCheck } from './commands/policy-check.ts'
import { policyCompile } from './commands/policy-compile.ts'
import { policyInit } from './commands/policy-init.ts'
import { policyPin } from './commands/policy-pin.ts'
import { policyPublish } from './commands/policy-publish.ts'
import { policyShow } from './commands/policy-show.ts'
import { policySign } from './commands/policy-sign.ts'
import { rollback } from './commands/rollback.ts'
import { token } from './commands/token.ts'

/** `bagcheck`. */
export const TABLE: Group = group('bagcheck: no attested, policy-approved Nix closure, no token.', {
  demo: group('See the whole story on this machine.', { api: demoApi }, demo),
  closure: CLOSURE,
  attest: group('Attest closures (CI).', { submit: attestSubmit }, attestRoot),
  policy: group('Trust root and policy: who may get which token for which closure.', {
    init: policyInit,
    pin: policyPin,
    check: policyCheck,
    compile: policyCompile,
    sign: policySign,
    publish: policyPublish,
    show: policyShow,
  }),
  node: group('Nodes: who may state evidence.', {
    'join-token': nodeJoinToken,
    list: nodeList,
    ban: nodeBan,
  }),
  authority: group('Authorities: what signs SVIDs.', {
    list: authorityList,
    prepare: authorityPrepare,
    activate: authorityActivate,
    taint: authorityTaint,
    revoke: authorityRevoke,
  }),
  exec,
  rollback,
  token,
  explain,
  decisions,
  log: group('The log of attestations, policies, enrolments and decisions.', {
    checkpoint: logCheckpoint,
    entry: logEntry,
    prove: logProve,
    verify: logVerify,
  }),
  evidence: group('What a token rests on, in one file.', {
    export: evidenceExport,
    verify: evidenceVerify,
  }),
  keygen,
  doctor,
})
