// Puts the Workload API together: the bundles, the sessions of X.509-SVIDs, the server.
import type { Server } from 'node:net'
import type { Log } from '../../log.ts'
import type { Callers } from '../callers.ts'
import type { EarlyRenewable } from '../early-renewals.ts'
import type { IssueContext } from '../issue.ts'
import type { Outcomes } from '../outcomes.ts'
import { RateLimit } from '../rate-limit.ts'
import type { SessionContext } from '../session.ts'
import { Sessions } from '../sessions.ts'
import { Bundles } from './bundles.ts'
import { issueJwtSvid } from './jwt-svid.ts'
import { createWorkloadApi } from './server.ts'
import { issueX509Svid, type X509Svid } from './x509-svid.ts'

/** Per process instance: a burst, then one SVID a second. */
const SVID_BURST = 20
const SVIDS_PER_SECOND = 1
/** Per user: verifying costs a fifth of a millisecond. */
const VALIDATE_BURST = 500
const VALIDATIONS_PER_SECOND = 250
/** When the trust bundle changes, the SVIDs of a host are renewed within so long. */
const RENEW_WITHIN_MS = 2000

/** A Workload API that waits to listen. */
export interface RunningWorkloadApi extends AsyncDisposable {
  readonly server: Server
  /** Of X.509-SVIDs. */
  readonly sessions: EarlyRenewable
}

/** Makes the Workload API of one agent; the caller lets it listen. */
export function startWorkloadApi(
  issuing: IssueContext,
  options: {
    readonly callers: Callers
    readonly timing: Pick<SessionContext<X509Svid>, 'now' | 'random' | 'schedule'>
    readonly log: Log
    /** Denials of a bag end its streams, whoever asked. */
    readonly outcomes: Pick<Outcomes, 'subscribe'>
  },
): RunningWorkloadApi {
  const { callers, timing, log, outcomes } = options
  const { now } = timing
  const bundles = new Bundles({
    broker: issuing.broker,
    trustDomain: () => trustDomainOf(issuing.roots),
    log,
  })
  const sessions = new Sessions<X509Svid>(
    (request) => issueX509Svid(request, issuing, bundles),
    { ...timing, wipe: ({ privateKey }) => void privateKey.fill(0) },
    log,
    outcomes,
  )
  // An authority that was added, revoked or tainted: what it signed is replaced, and what is sent names the
  // bundle of now.
  bundles.subscribe(() => {
    for (const session of sessions.live()) session.renewWithin(RENEW_WITHIN_MS)
  })
  const { server, end } = createWorkloadApi({
    ...{ sessions, bundles, callers, now, log },
    issueJwt: (asked) => issueJwtSvid(asked, issuing),
    svidLimit: new RateLimit(SVID_BURST, SVIDS_PER_SECOND, now),
    validateLimit: new RateLimit(VALIDATE_BURST, VALIDATIONS_PER_SECOND, now),
  })
  return {
    server,
    sessions,
    async [Symbol.asyncDispose]() {
      bundles[Symbol.dispose]()
      sessions[Symbol.dispose]()
      end()
      if (!server.listening) return
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

async function trustDomainOf(roots: IssueContext['roots']): Promise<string> {
  if (roots.trustDomain === undefined) await roots.refreshPolicy(0)
  return roots.trustDomain as string
}
