// `GET /v1/explain?pid=N`, for an operator: what the agent would state about a process now, and what came of its
// last request. Nothing is asked of the broker and nothing is issued; tokens are not in it, and what looks like a
// secret is not shown.
import { AgentError } from '../error.ts'
import { describe } from '../log.ts'
import type {
  ProcessFacts,
  ProcessInstance,
  SettledMeasurement as Measurement,
} from '../measure/messages.ts'
import type { LastObservation } from './observe.ts'
import type { Measurers } from './measurer-client.ts'
import type { Outcomes } from './outcomes.ts'
import { redactArguments, redactDenial, redactText } from './redact.ts'
import type { Roots } from './roots.ts'

const MAX_PROCESSES = 32
const MAX_FILES = 32

/** What explaining needs. */
export interface ExplainContext {
  readonly measure: (instance: ProcessInstance) => Promise<Measurement>
  readonly measurer: Pick<Measurers, 'instance'>
  readonly roots: Pick<Roots, 'fitting' | 'policyVersion'>
  readonly outcomes: Pick<Outcomes, 'lastOf' | 'ofUnit'>
  readonly observations: {
    readonly lastOf: (instance: ProcessInstance) => LastObservation | undefined
  }
}

/** All that there is to say about process `pid`. @throws {AgentError} REQUEST_INVALID – it is not there */
export async function explainProcess(
  pid: number,
  { measure, measurer, roots, outcomes, observations }: ExplainContext,
): Promise<unknown> {
  const instance = await instanceOf(pid, measurer)
  const now = await stateNow(instance, measure, roots)
  const own = outcomes.lastOf(instance)
  const last = own ?? ('unit' in now ? outcomes.ofUnit(now.unit) : undefined)
  const observed = observations.lastOf(instance)
  return {
    pid,
    startTicks: instance.startTicks,
    policyVersion: roots.policyVersion,
    now,
    /** Of this very process, or of another of its unit. */
    lastOf: last === undefined ? null : own === undefined ? 'unit' : 'process',
    last:
      last === undefined
        ? null
        : 'success' in last
          ? {
              allowed: true,
              ...{ at: last.success.at, audience: last.success.audience },
              ...{ decision: last.success.decision, logIndex: last.success.logIndex },
            }
          : { allowed: false, ...redactDenial(last.denial) },
    observed:
      observed === undefined
        ? null
        : { at: observed.at, audience: observed.audience, ...observed.said },
  }
}

type Now =
  | { readonly measured: false; readonly code: string; readonly error: string }
  | {
      readonly measured: true
      readonly unit: Measurement['unit']
      readonly processes: readonly unknown[]
      readonly moreProcesses: number
      readonly roots: readonly unknown[]
    }

async function stateNow(
  instance: ProcessInstance,
  measure: ExplainContext['measure'],
  roots: ExplainContext['roots'],
): Promise<Now> {
  try {
    const measurement = await measure(instance)
    const { unit, processes } = measurement
    const { contract } = unit
    return {
      measured: true,
      unit: {
        ...unit,
        contract: contract && { ...contract, arguments: redactArguments(contract.arguments) },
      },
      processes: processes.slice(0, MAX_PROCESSES).map(summary),
      moreProcesses: Math.max(processes.length - MAX_PROCESSES, 0),
      // For no audience in particular: the content is looked at as for most.
      roots: await roots.fitting(measurement, ''),
    }
  } catch (error) {
    const { code, error: message } = describe(error)
    return { measured: false, code, error: redactText(message) }
  }
}

/** A process without what only a verifier reads. Of its files those that are no store files come first. */
function summary({ pid, uids, gids, executable, files, argv, ...rest }: ProcessFacts): unknown {
  const shown = files.toSorted((a, b) => Number(a.isStoreFile) - Number(b.isStoreFile))
  const place = ({ path, isStoreFile, unlinked }: (typeof files)[number]): unknown => ({
    ...{ path, isStoreFile, unlinked },
  })
  return {
    ...{ pid, uid: uids[1], gid: gids[1], argv: redactArguments(argv) },
    executable: place(executable),
    files: shown.slice(0, MAX_FILES).map(place),
    moreFiles: Math.max(files.length - MAX_FILES, 0),
    ...{ tracerPid: rest.tracerPid, noNewPrivs: rest.noNewPrivs },
    ...{ modifiedTextBytes: rest.modifiedTextBytes },
    ...{ executableMemory: rest.executableMemory },
    ...{ hostRoot: rest.hostRoot, hostUserNamespace: rest.hostUserNamespace },
    ...{ verifiedStoreMount: rest.verifiedStoreMount, mountsBelowStore: rest.mountsBelowStore },
    environmentHints: rest.environmentHints.map((hint) => hint.split('=', 1)[0]),
    searchPaths: rest.searchPaths,
  }
}

/** Errors about that process are an answer to the one that asks, not a reason to hang up on it. */
async function instanceOf(
  pid: number,
  measurer: ExplainContext['measurer'],
): Promise<ProcessInstance> {
  try {
    return await measurer.instance(pid)
  } catch (cause) {
    if (!(cause instanceof AgentError && /^PROCESS_(GONE|MOVED)$/.test(cause.code))) throw cause
    throw new AgentError('REQUEST_INVALID', `expected a process ${pid} that runs`, { cause })
  }
}
