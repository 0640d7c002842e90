// One installation on paper: keys, trust root, policy, an attested closure and facts that pass. Tests
// change one thing.
import {
  formatEnvelope,
  formatVerifyingKey,
  generateSigningKey,
  type ClosureFacts,
  type SigningKey,
} from '@bagcheck/attest'
import {
  buildManifest,
  makeFileList,
  narHashFromDigest,
  sha256Hex,
  type Sha256,
  type StorePath,
} from '@bagcheck/nix'
import {
  attestClosure,
  inventPath,
  mappedFile,
  policyText,
  pureFacts,
  runningFacts,
  runningHost,
  runningProcess,
  type RunningService,
} from '@bagcheck/testkit'
import {
  compilePolicy,
  createPolicyEnvelope,
  createTrustRoot,
  evaluate,
  trustRootDigest,
  verifyPolicyDocument,
  verifyTrustRootChain,
  type AttestedClosure,
  type Decision,
  type EvaluationContext,
  type Facts,
  type MappedFile,
  type ProcessFacts,
  type TrustRoot,
  type TrustRootInput,
  type VerifiedPolicy,
} from '../src/index.ts'

export const NOW = new Date('2026-11-24T12:00:00Z')
export const AUDIENCE = 'https://api.demo.test'
export const INSTALLATION = 'demo'

/** Keys by name; made once, never changed. */
export const KEYS: Readonly<Record<string, SigningKey>> = Object.fromEntries(
  [
    'root-1',
    'root-2',
    'root-3',
    'policy-1',
    'policy-2',
    'policy-3',
    'approvals',
    'enrolment',
    'broker',
    'ci',
    'other',
  ].map((name) => [name, generateSigningKey().signing]),
)

export function key(name: string): SigningKey {
  const found = KEYS[name]
  if (found === undefined) throw new TypeError(`no key ${name}`)
  return found
}

const members = (threshold: number, ...names: string[]) => ({
  threshold,
  keys: names.map((name) => ({ name, key: key(name) })),
})

/** Version 1 of the trust root; policy needs two of three. */
export function rootInput(wish: Partial<TrustRootInput> = {}): TrustRootInput {
  return {
    installation: INSTALLATION,
    version: 1,
    expires: '2027-11-24T00:00:00Z',
    prev: null,
    roles: {
      root: members(2, 'root-1', 'root-2', 'root-3'),
      policy: members(2, 'policy-1', 'policy-2', 'policy-3'),
      approvals: members(1, 'approvals'),
      enrolment: members(1, 'enrolment'),
      broker: members(1, 'broker'),
    },
    log: { origin: 'demo.bagcheck.log', keys: ['demo.bagcheck.log+01234567+AbCd'] },
    ...wish,
  }
}

export { members }

export function rootText(input: TrustRootInput, signers = ['root-1', 'root-2']): string {
  return formatEnvelope(createTrustRoot(input, signers.map(key)))
}

export const ROOT_TEXT: string = rootText(rootInput())
export const PIN: Sha256 = trustRootDigest(ROOT_TEXT)
export const ROOT: TrustRoot = verifyTrustRootChain([ROOT_TEXT], { pin: PIN, now: NOW })

export { inventPath }

export const NODE_STORE_PATH: StorePath = inventPath('demo-node-24.1')
export const NODE = `${NODE_STORE_PATH}/bin/node`
export const LIBC = `${NODE_STORE_PATH}/lib/libc.so.6`
const narHash = (text: string) => narHashFromDigest(Buffer.from(sha256Hex(text), 'hex'))
export const PURE: ClosureFacts = pureFacts()

export interface ServiceClosure extends AttestedClosure {
  readonly root: StorePath
  readonly digest: Sha256
  readonly script: string
}

/** `orders-VERSION`: a script on the node of the demo. */
export function orders(
  version: string,
  { signer = 'ci', facts = PURE }: { signer?: string; facts?: ClosureFacts } = {},
): ServiceClosure {
  const root = inventPath(`orders-${version}`)
  const script = `${root}/lib/service.mjs`
  const manifest = buildManifest(root, [
    { path: NODE_STORE_PATH, narHash: narHash('node'), narSize: 4000, references: [] },
    { path: root, narHash: narHash(version), narSize: 400, references: [NODE_STORE_PATH] },
  ])
  const files = makeFileList([
    { path: NODE, sha256: sha256Hex('node'), size: 3000, executable: true },
    { path: LIBC, sha256: sha256Hex('libc'), size: 900, executable: true },
    { path: script, sha256: sha256Hex(version), size: 300, executable: false },
    { path: `${root}/lib/other.mjs`, sha256: sha256Hex('other'), size: 30, executable: false },
    { path: `${root}/orders.service`, sha256: sha256Hex('unit'), size: 30, executable: false },
    { path: `${root}/config.json`, sha256: sha256Hex('config'), size: 30, executable: false },
  ])
  const { attestation } = attestClosure({ manifest, files }, key(signer), facts)
  return { attestation, manifest, files, root, digest: manifest.digest, script }
}

export const ORDERS: ServiceClosure = orders('1.0')
export const HOTFIX: ServiceClosure = orders('1.0.1')

/** The policy of the demo as people write it, with `edits` made to its text. */
export function policySource(...edits: readonly (readonly [from: string, to: string])[]): string {
  let text = policyText({
    installation: INSTALLATION,
    expires: '2026-12-24T00:00:00Z',
    role: 'orders',
    executable: 'demo-node-*/bin/node',
    script: 'orders-*/lib/service.mjs',
    audiences: { [AUDIENCE]: { profile: 'api' } },
    root: ORDERS.root,
    closure: ORDERS.digest,
  })
  for (const [from, to] of edits) {
    if (!text.includes(from)) throw new TypeError(`the policy has no ${from}`)
    text = text.replace(from, to)
  }
  return text
}

/** The text of the policy with another root approved, and more lines of the role after its roots. */
export function withRole(closures: readonly ServiceClosure[], ...lines: string[]): string {
  const roots = closures.map(
    ({ root, digest }) => `      - { root: ${root}, closure: ${digest}, state: active }`,
  )
  return [policySource(), ...roots, ...lines].join('\n').replace(/\n\n/g, '\n')
}

export function compile(text: string): ReturnType<typeof compilePolicy> {
  return compilePolicy(text, {
    file: 'policy.yaml',
    readFile: () => formatVerifyingKey(key('ci')),
  })
}

export function signPolicy(text: string, prev: string | null = null): string {
  const signers = [key('policy-1'), key('policy-2')]
  return formatEnvelope(createPolicyEnvelope(compile(text).json, prev, signers))
}

export function verified(text: string = policySource(), root: TrustRoot = ROOT): VerifiedPolicy {
  return verifyPolicyDocument({ json: compile(text).json, envelope: signPolicy(text) }, root)
}

export function mapped(path: string, content: string, wish: Partial<MappedFile> = {}): MappedFile {
  return mappedFile(path, sha256Hex(content), wish)
}

function running({ root, digest, script }: ServiceClosure): RunningService {
  return {
    name: 'orders',
    audience: AUDIENCE,
    root,
    closureDigest: digest,
    executable: mapped(NODE, 'node'),
    libraries: [mapped(LIBC, 'libc')],
    script,
  }
}

export function nodeProcess(wish: Partial<ProcessFacts> = {}): ProcessFacts {
  return { ...runningProcess(running(ORDERS)), ...wish }
}

/** Facts that the policy of the demo allows. */
export function passing(closure: ServiceClosure = ORDERS): Facts {
  return runningFacts(running(closure), Math.floor(NOW.getTime() / 1000) - 1)
}

/** What may be changed in a copy. */
export type Editable<T> = T extends readonly (infer E)[]
  ? Editable<E>[]
  : T extends string | number | boolean | null
    ? T
    : { -readonly [K in keyof T]: Editable<T[K]> }

export type Edit = (facts: {
  -readonly [K in keyof Facts]: Editable<Facts[K]>
}) => void

/** A copy of passing facts with one thing changed. */
export function factsWith(edit: Edit, closure: ServiceClosure = ORDERS): Facts {
  // The clone is ours alone, so that its readonly members may be written.
  const copy = structuredClone(passing(closure)) as unknown as Parameters<Edit>[0]
  edit(copy)
  return copy as unknown as Facts
}

export function context(
  wish: Partial<EvaluationContext> = {},
  closures: readonly ServiceClosure[] = [ORDERS, HOTFIX],
): EvaluationContext {
  return {
    nodeClass: 'demo',
    tier: 0,
    now: NOW,
    workloadKey: 'wOrKlOaDkEyThUmBpRiNt0000000000000000000000',
    profile: null,
    type: 'access_token',
    host: runningHost(),
    closures: { get: (digest) => closures.find((closure) => closure.digest === digest) },
    ...wish,
  }
}

/** The codes of a denial; empty for an allow. */
export function codesOf(decision: Decision): string[] {
  return decision.allow ? [] : decision.reasons.map(({ code }) => code)
}

export function judge(facts: Facts, policy: VerifiedPolicy = POLICY): Decision {
  return evaluate(policy, facts, context())
}

export const POLICY: VerifiedPolicy = verified()
