// The one place where a route's name meets its handler.
import type { Handlers } from '../app.ts'
import {
  activateAuthority,
  authorities,
  prepareAuthority,
  revokeAuthority,
  taintAuthority,
} from './authorities.ts'
import { attestation, submitAttestation } from './attestations.ts'
import { decision, decisions, evidence } from './audit.ts'
import { authorizationServer, jwks, openapi, openidConfiguration } from './discovery.ts'
import { checkpoint, logEntry, tile } from './log.ts'
import { banNode, challenge, enrolNode, nodes } from './nodes.ts'
import { livez, metrics, readyz } from './operations.ts'
import { policy, publishPolicy, rootChain } from './policy.ts'
import { bundle, bundles, svids } from './spiffe.ts'
import { observe } from './observations.ts'
import { token } from './token.ts'

export const handlers: Handlers = {
  activateAuthority,
  attestation,
  authorities,
  authorizationServer,
  banNode,
  bundle,
  bundles,
  challenge,
  checkpoint,
  decision,
  decisions,
  enrolNode,
  evidence,
  jwks,
  livez,
  logEntry,
  metrics,
  nodes,
  observe,
  openapi,
  openidConfiguration,
  policy,
  prepareAuthority,
  publishPolicy,
  readyz,
  revokeAuthority,
  rootChain,
  submitAttestation,
  svids,
  taintAuthority,
  tile,
  token,
}
