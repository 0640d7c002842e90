// What the agent says about a process (`GET /v1/explain`), checked as far as it is read, and in words.
import { reasonSchema, z } from '@bagcheck/api'
import { remedy } from './policy/remedy.ts'

const file = z.object({ path: z.string(), isStoreFile: z.boolean(), unlinked: z.boolean() })

const nowSchema = z.discriminatedUnion('measured', [
  z.object({ measured: z.literal(false), code: z.string(), error: z.string() }),
  z.object({
    measured: z.literal(true),
    unit: z.object({
      launcher: z.string(),
      name: z.string(),
      cgroup: z.string(),
      contract: z
        .object({ executable: z.string(), arguments: z.array(z.string()), intact: z.boolean() })
        .nullable(),
    }),
    processes: z.array(
      z.object({ pid: z.int(), uid: z.int(), executable: file, files: z.array(file) }),
    ),
    moreProcesses: z.int(),
    roots: z.array(
      z.object({
        root: z.string(),
        closureDigest: z.string(),
        strength: z.string(),
        mismatch: z
          .object({
            ...{ path: z.string(), file: z.string().nullable(), kind: z.string() },
            ...{ expected: z.string(), seen: z.string() },
          })
          .nullable(),
      }),
    ),
  }),
])

const lastSchema = z.discriminatedUnion('allowed', [
  z.object({
    allowed: z.literal(true),
    ...{ at: z.number(), audience: z.string().nullable(), decision: z.string() },
  }),
  z.object({
    allowed: z.literal(false),
    ...{ at: z.number(), audience: z.string().nullable(), decision: z.string().nullable() },
    ...{ code: z.string(), message: z.string(), reasons: z.array(reasonSchema) },
    offence: z
      .object({ path: z.string(), kind: z.string(), expected: z.string(), seen: z.string() })
      .nullable(),
  }),
])

/** `GET /v1/explain`. Members that are not read here are passed on with `--json`. */
export const explanationSchema = z.looseObject({
  pid: z.int(),
  policyVersion: z.int(),
  now: nowSchema,
  lastOf: z.enum(['process', 'unit']).nullable(),
  last: lastSchema.nullable(),
  observed: z
    .object({
      ...{ at: z.number(), audience: z.string(), would_allow: z.boolean() },
      reasons: z.array(reasonSchema),
    })
    .nullable(),
})
export type Explanation = z.infer<typeof explanationSchema>

/** The explanation, a line each. */
export function explanationLines(said: Explanation): string[] {
  return [...nowLines(said), ...lastLines(said), ...observedLines(said)]
}

function nowLines({ pid, now, policyVersion }: Explanation): string[] {
  if (!now.measured)
    return [`now       process ${pid} cannot be measured: ${now.code}: ${now.error}`]
  const { unit, processes, roots, moreProcesses } = now
  const { contract } = unit
  const foreign = processes.flatMap(({ pid: owner, executable, files }) =>
    [executable, ...files]
      .filter(({ isStoreFile, unlinked }) => !isStoreFile || unlinked)
      .map(({ path, unlinked }) => ({ owner, path, unlinked })),
  )
  return [
    unit.launcher === 'none'
      ? `now       process ${pid} belongs to no unit (cgroup ${unit.cgroup})`
      : `now       process ${pid} is in ${unit.launcher} unit ${unit.name} (cgroup ${unit.cgroup})`,
    ...(unit.launcher === 'none'
      ? ['to pass   start it with bagcheck exec, or as a systemd service']
      : []),
    ...(contract === null
      ? []
      : [
          `started   ${[contract.executable, ...contract.arguments].join(' ')}${contract.intact ? '' : '  (runs something else now)'}`,
        ]),
    `measured  ${processes.length + moreProcesses} process(es), of uid ${[...new Set(processes.map(({ uid }) => uid))].join(', ')}, under ${policyVersion === 0 ? 'no policy: the agent has read none yet' : `policy version ${policyVersion}`}`,
    ...foreign
      .slice(0, 8)
      .map(
        ({ owner, path, unlinked }) =>
          `          process ${owner} maps ${path}, ${unlinked ? 'which has no name any more' : 'which is no file of the store'}`,
      ),
    ...(roots.length === 0 ? fitsNothing(unit, policyVersion) : []),
    ...roots.flatMap(({ root, closureDigest, strength, mismatch }) => [
      `fits      ${root} (${strength === 'path-claim' ? 'by the word of the local Nix; nobody approved it here' : `checked: ${strength}`})`,
      `          closure ${closureDigest}`,
      ...(mismatch === null
        ? []
        : [
            `          but ${mismatch.file ?? mismatch.path} differs (${mismatch.kind}): expected ${mismatch.expected}, saw ${mismatch.seen}`,
          ]),
    ]),
  ]
}

/** Why it may be that nothing fits, and what to do then. */
function fitsNothing(unit: { launcher: string; name: string }, policyVersion: number): string[] {
  if (unit.launcher === 'none') return ['fits      no closure that is known here']
  return policyVersion === 0
    ? [
        'fits      no closure yet',
        'to pass   let the unit ask, which makes the agent read the policy',
      ]
    : [
        `fits      no closure that policy version ${policyVersion} approves for unit ${unit.name}, nor one of the local Nix`,
        'to pass   start it from the store path of an approved closure, and name the unit in a role of the policy',
      ]
}

function lastLines({ last, lastOf }: Explanation): string[] {
  if (last === null) return ['last      it has asked for nothing since the agent started']
  const whose = lastOf === 'unit' ? ', asked by another process of the unit' : ''
  const at = new Date(last.at).toISOString()
  const what = last.audience === null ? 'an X.509-SVID' : `audience ${last.audience}`
  if (last.allowed)
    return [`last      ALLOWED at ${at} for ${what}${whose}: decision ${last.decision}`]
  const reasons =
    last.reasons.length > 0 ? last.reasons : [{ code: last.code, message: last.message }]
  const { offence } = last
  return [
    `last      DENIED at ${at} for ${what}${whose}${last.decision === null ? '' : `: decision ${last.decision}`}`,
    ...(offence === null
      ? []
      : [
          `first     ${offence.path} (${offence.kind})${offence.expected === '' ? '' : `: expected ${offence.expected}`}, saw ${offence.seen}`,
        ]),
    ...reasonLines(reasons),
  ]
}

function observedLines({ observed }: Explanation): string[] {
  if (observed === null) return []
  const at = new Date(observed.at).toISOString()
  return [
    `observed  at ${at}: would have been ${observed.would_allow ? 'allowed' : 'denied'} for ${observed.audience}`,
    ...reasonLines(observed.reasons),
  ]
}

/** Reasons with what would make each pass. */
export function reasonLines(reasons: readonly z.infer<typeof reasonSchema>[]): string[] {
  return reasons.flatMap(({ code, message, nearest }) => {
    const advice = remedy(code)
    return [
      `because   ${code}: ${message}`,
      ...(nearest
        ? [
            `          nearest approved: ${nearest.root}`,
            `          first difference: ${nearest.firstDifference}`,
          ]
        : []),
      ...(advice === null ? [] : [`to pass   ${advice}`]),
    ]
  })
}
