export type { Approval, ApprovalContent } from './approval.ts'
export { approvedForHosts, approvedForService, type ApprovedBag } from './approved-bags.ts'
export type { AttestedClosure, ClosureIndex } from './closures.ts'
export { DENIAL_CODES, type DenialCode, type DenialReason, type Nearest } from './denial.ts'
export { POLICY_ERROR_CODES, PolicyError, type PolicyErrorCode } from './error.ts'
export { decisionContext, type DecisionBasis } from './decision-context.ts'
export { INSTALLATION_NAME } from './installation-name.ts'
export {
  evaluate,
  observe,
  whyNotInForce,
  type Decision,
  type EvaluationContext,
  type ObservedVerdict,
} from './evaluate.ts'
export { explainApproval } from './explain.ts'
export { closuresNeeded } from './host-objects.ts'
export type {
  ContainerFacts,
  ContentMismatch,
  ExecutableMemory,
  Facts,
  HostFacts,
  LaunchContract,
  MappedFile,
  ProcessFacts,
  RootFacts,
  ServiceFacts,
  UnitFacts,
} from './facts.ts'
export {
  JOIN_TOKEN_SCHEMA,
  createJoinToken,
  verifyJoinToken,
  verifyJoinTokenDocument,
  type JoinToken,
} from './join-token.ts'
export {
  MAX_POLICY_BYTES,
  POLICY_SCHEMA,
  TRUST_DOMAIN,
  parsePolicy,
  trustDomainId,
  type ApprovedRoot,
  type Audience,
  type Policy,
  type Profile,
  type Role,
  type TokenType,
} from './policy.ts'
export {
  VerifiedPolicy,
  addPolicySignature,
  createPolicyEnvelope,
  verifyPolicy,
  verifyPolicyDocument,
  type InstalledVersion,
  type SignedPolicy,
} from './policy-signature.ts'
export {
  PolicySourceError,
  compilePolicy,
  type CompiledPolicy,
  type SourceProblem,
} from './policy-source.ts'
export {
  TRUST_ROLES,
  createTrustRoot,
  trustRootDigest,
  verifyTrustRootChain,
  type RoleKeys,
  type TrustRole,
  type TrustRoot,
  type TrustRootInput,
} from './trust-root.ts'
