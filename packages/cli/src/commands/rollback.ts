// Puts the newest earlier generation of a profile in force that policy approves, in place of one that it does not.
// `bagcheck-agent --actions` runs this after a denial; what it passes on is its configuration. The policy's file may
// come from somebody who was taken over, so everything in it is verified here, against the pin; the generations are
// those that root made; and of each the content is read in full and compared with the digest that was approved.
import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { isDeepStrictEqual, promisify } from 'node:util'
import { policyResponseSchema } from '@bagcheck/api'
import { NixError, verifyClosure } from '@bagcheck/nix'
import {
  approvedForHosts,
  approvedForService,
  verifyPolicyDocument,
  verifyTrustRootChain,
  type ApprovedBag,
  type TrustRoot,
  type VerifiedPolicy,
} from '@bagcheck/policy'
import { loadAttributeReader } from '../closure/attributes.ts'
import { readClosureFrom, SOURCE_OPTIONS, type SourceValues } from '../closure/source.ts'
import { command, type Context } from '../command.ts'
import { CliError, EXIT } from '../error.ts'
import { RollbackGuard } from '../rollback/guard.ts'
import { readProfile, switchProfile, type Generation } from '../rollback/profile.ts'
import { readPin, TRUST_OPTION } from '../trust.ts'

const MAX_ANSWER_BYTES = 256 * 1024 * 1024
const RESTART_TIMEOUT_MS = 90_000
const SWITCH_TIMEOUT_MS = 600_000
const PATH = '/run/current-system/sw/bin:/usr/bin:/bin'

export const rollback = command({
  summary: 'Switch a profile back to an earlier, approved generation (root).',
  positionals: 'PROFILE',
  description: [
    'Nothing happens where the current generation is approved and intact. Else the earlier generations are ' +
      'looked at, newest first: is the path a root that the policy approves for the unit (or, with --host-class, ' +
      "for the hosts of that class), is the closure's digest the approved one, is all its content what that digest " +
      'says. The first that passes is switched to, and the unit restarted; of a system, its own ' +
      '`bin/switch-to-configuration switch` is run.',
    'The policy is the answer of GET /v1/policy in a file, and verified against --trust. A policy that is older ' +
      'than one that was seen before is refused.',
  ],
  options: {
    policy: { type: 'string', value: 'FILE', required: true, help: "the broker's policy" },
    ...TRUST_OPTION,
    installation: { type: 'string', value: 'NAME', required: true, help: 'which Bagcheck' },
    unit: { type: 'string', value: 'NAME', help: 'service whose profile it is; restarted' },
    'host-class': {
      type: 'string',
      value: 'CLASS',
      help: 'it is the system of hosts of this class',
    },
    state: {
      type: 'string',
      value: 'DIR',
      default: '/var/lib/bagcheck-actions',
      help: 'where is remembered what was switched',
    },
    'min-interval': {
      type: 'string',
      value: 'SECONDS',
      default: '3600',
      help: 'between two rollbacks of the profile',
    },
    'dry-run': { type: 'boolean', help: 'say what would be switched, and switch nothing' },
    ...SOURCE_OPTIONS,
  },
  examples: [
    'bagcheck rollback /nix/var/nix/profiles/orders --unit orders.service --policy /run/bagcheck/policy.json \\\n' +
      '    --installation production --trust root.json --dry-run',
  ],
  run: async (context, values, [profile = '']) => {
    if (process.geteuid?.() !== 0) throw new CliError('NOT_ROOT', 'rollback needs root')
    const { unit, trust } = values
    const hostClass = values['host-class']
    if (trust === undefined)
      throw new CliError('USAGE', 'which trust root? Give --trust ROOT, or set BAGCHECK_TRUST')
    if ((unit === undefined) === (hostClass === undefined))
      throw new CliError('USAGE', 'give --unit NAME, or --host-class CLASS for a system')
    if (unit !== undefined && !/^[A-Za-z0-9:_.@][A-Za-z0-9:_.@-]{0,191}\.service$/.test(unit))
      throw new CliError('USAGE', `--unit takes a service, not ${JSON.stringify(unit)}`)
    const interval = values['min-interval']
    if (!/^[1-9][0-9]{0,5}$/.test(interval))
      throw new CliError('USAGE', `--min-interval takes seconds, not ${JSON.stringify(interval)}`)

    const pin = await readPin(trust)
    const now = context.now()
    using guard = await RollbackGuard.open(values.state)
    const { installation } = values
    const { policy, root } = await readPolicy(values.policy, { pin, now, installation })
    await guard.see(pin, policy, root.version)
    const approvedNow = (): readonly ApprovedBag[] =>
      hostClass === undefined
        ? approvedForService(policy, unit ?? '', context.now())
        : approvedForHosts(policy, hostClass, context.now())
    const approved = approvedNow()
    const { current, earlier } = readProfile(profile)
    if ((await whyNot(current, approved, values, context)) === null)
      throw refuse(
        'ROLLBACK_NOT_NEEDED',
        `generation ${current.number} of ${profile}, ${current.path}, is approved and intact`,
      )
    const { found, against } = await findGeneration(earlier, approved, values, context)
    if (found === undefined)
      throw refuse(
        'ROLLBACK_NONE',
        `no generation of ${profile} before ${current.number} is approved and intact` +
          (against === '' ? '' : `: ${against}`),
      )
    // To read it took its time.
    const still = approvedNow()
    const looked = approved.filter(({ root }) => root === found.path)
    if (!looked.every((bag) => still.some((one) => isDeepStrictEqual(one, bag))))
      throw refuse('ROLLBACK_NONE', `the approval of ${found.path} ended while it was read`)
    const facts = { profile, policy: policy.version, from: current, to: found }
    const what = `${profile} from generation ${current.number} to ${found.number}, ${found.path}`
    if (values['dry-run']) {
      context.result({ ...facts, switched: false }, `would switch ${what}`)
      return
    }
    await guard.take(profile, {
      path: current.path,
      nowMs: now.getTime(),
      intervalMs: Number(interval) * 1000,
    })
    await switchProfile(profile, current, found)
    await putInForce(unit, found)
    context.result({ ...facts, switched: true }, `switched ${what}`)
  },
})

/** @throws {CliError} FILE_UNREADABLE; {PolicyError} what is wrong with trust root or policy */
async function readPolicy(
  file: string,
  {
    pin,
    now,
    installation,
  }: { pin: Parameters<typeof verifyTrustRootChain>[1]['pin']; now: Date; installation: string },
): Promise<{ policy: VerifiedPolicy; root: TrustRoot }> {
  const parsed = policyResponseSchema.safeParse(await readForeign(file))
  // Its content is nobody's business: the file may be a link's idea of somebody who wants to read root's files.
  if (!parsed.success) throw new CliError('FILE_UNREADABLE', `${file} holds no policy of a broker`)
  const { policy: json, envelope, rootChain } = parsed.data
  const root = verifyTrustRootChain(rootChain, { pin, now })
  if (root.installation !== installation)
    throw refuse('REFUSED', `expected installation ${installation}, saw ${root.installation}`)
  return { policy: verifyPolicyDocument({ json, envelope }, root), root }
}

/** JSON in a plain file whose directory may be somebody else's. */
async function readForeign(file: string): Promise<unknown> {
  const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants
  try {
    await using handle = await open(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
    const stat = await handle.stat()
    if (!stat.isFile() || stat.size > MAX_ANSWER_BYTES) return undefined
    return JSON.parse(await handle.readFile('utf8')) as unknown
  } catch (error) {
    if (error instanceof SyntaxError) return undefined // which would quote what is in it
    throw new CliError('FILE_UNREADABLE', `${file} cannot be read`, { cause: error })
  }
}

async function findGeneration(
  generations: readonly Generation[],
  approved: readonly ApprovedBag[],
  values: SourceValues,
  context: Context,
): Promise<{ found: Generation | undefined; against: string }> {
  const reasons: string[] = []
  for (const generation of generations) {
    const why = await whyNot(generation, approved, values, context).catch((error: unknown) => {
      if (context.signal.aborted) throw error
      return (error as Error).message
    })
    if (why === null) return { found: generation, against: '' }
    reasons.push(`${generation.number}: ${why}`)
  }
  return { found: undefined, against: reasons.slice(0, 8).join('; ') }
}

/**
 * What speaks against a generation; null if it is approved, and on this host what was approved. That it could not be
 * looked at is neither: who can keep Nix from answering must not have the current one taken for a bad one.
 * @throws {Error} what kept it from being looked at
 */
async function whyNot(
  { path }: Generation,
  approved: readonly ApprovedBag[],
  values: SourceValues,
  { signal, now, progress }: Context,
): Promise<string | null> {
  const bags = approved.filter(({ root }) => root === path)
  if (bags.length === 0) return 'not approved'
  const manifest = await readClosureFrom(path, values, signal).catch((error: unknown) => {
    if (error instanceof NixError && error.code === 'PATH_INVALID') return undefined
    throw error
  })
  if (manifest === undefined) return 'Nix has lost some of it'
  if (!bags.some(({ closure }) => closure === manifest.digest))
    return `it is closure ${manifest.digest}, and another was approved`
  const readAttributes = await loadAttributeReader()
  progress(`reading ${path}`)
  const verification = await verifyClosure(
    { entries: manifest.entries },
    { now: () => now().getTime(), signal, full: true, ...(readAttributes && { readAttributes }) },
  )
  return verification.ok ? null : `${verification.mismatches[0]?.path} was altered`
}

/** Lets PID 1 start what is in force now: what runs outlives us and our confinement. */
async function putInForce(unit: string | undefined, { path }: Generation): Promise<void> {
  const run = async (timeout: number, program: string, ...args: string[]): Promise<void> => {
    try {
      await promisify(execFile)(program, args, { timeout, env: { PATH }, cwd: '/' })
    } catch (cause) {
      throw new CliError(
        'COMMAND_NOT_STARTED',
        `the profile was switched, and "${program} ${args.join(' ')}" failed`,
        { cause },
      )
    }
  }
  if (unit === undefined) {
    const transient = ['--quiet', '--collect', '--wait', '--service-type=exec']
    const program = [`${path}/bin/switch-to-configuration`, 'switch']
    const own = [...transient, '--unit=bagcheck-rollback', '--', ...program]
    return run(SWITCH_TIMEOUT_MS, 'systemd-run', ...own)
  }
  // Its unit file may be the profile's own.
  await run(RESTART_TIMEOUT_MS, 'systemctl', '--no-ask-password', 'daemon-reload')
  await run(RESTART_TIMEOUT_MS, 'systemctl', '--no-ask-password', 'restart', '--', unit)
}

function refuse(
  code: 'REFUSED' | 'ROLLBACK_NOT_NEEDED' | 'ROLLBACK_NONE',
  message: string,
): CliError {
  return new CliError(code, message, { exit: EXIT.refused })
}
