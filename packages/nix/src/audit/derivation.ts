// What a derivation asks of its builder that takes from what its closure proves.
import { formatContentAddress, formatMethodAndAlgorithm } from '../content-address.ts'
import { readAttributes } from '../derivation/attributes.ts'
import type { Attributes } from '../derivation/attributes.ts'
import { decodeByteString, derivationKind } from '../derivation/derivation.ts'
import type { Derivation } from '../derivation/derivation.ts'
import type { HashAlgorithm } from '../hash.ts'
import { storePathOf } from '../store-path.ts'
import type { Seen } from './finding.ts'
import { hostOf, isInsecure, redactUrls } from './url.ts'

const WEAK: readonly HashAlgorithm[] = ['md5', 'sha1']
/** What `fetchurl` and its like need to pass proxies of the builder through; it cannot change the content. */
const PROXIES = /^(?:https?|ftp|all|no)_proxy$/i
const HOST_DEPENDENCIES = [
  '__impureHostDeps',
  '__propagatedImpureHostDeps',
  '__sandboxProfile',
  '__darwinAllowLocalNetworking',
]
const REFERENCE_LIMITS = [
  'allowedReferences',
  'allowedRequisites',
  'disallowedReferences',
  'disallowedRequisites',
  'outputChecks',
]

/** Everything of that kind in one derivation, without what its text gives away. */
export function auditDerivation(derivation: Derivation): Seen[] {
  const attributes = readAttributes(derivation)
  return [
    ...auditOutputs(derivation),
    ...auditBuilder(derivation),
    ...auditFetch(derivation, attributes),
    ...auditSandbox(derivation, attributes),
    ...auditReferences(attributes),
  ]
}

function auditOutputs({ outputs }: Derivation): Seen[] {
  return Array.from(outputs, ([name, output]): Seen[] => {
    const field = `outputs.${name}`
    switch (output.kind) {
      case 'input-addressed':
        return []
      case 'deferred':
        return [{ kind: 'unknown-output', field, seen: 'deferred' }]
      case 'fixed': {
        const { hash } = output.address
        const seen = formatContentAddress(output.address)
        return WEAK.includes(hash.algorithm) ? [{ kind: 'weak-hash', field, seen }] : []
      }
      case 'floating':
      case 'impure': {
        const seen = formatMethodAndAlgorithm(output.method, output.algorithm)
        const kind = output.kind === 'impure' ? 'impure-output' : 'unknown-output'
        const weak = WEAK.includes(output.algorithm)
        return [
          { kind, field, seen },
          ...(weak ? [{ kind: 'weak-hash', field, seen } as const] : []),
        ]
      }
    }
  }).flat()
}

function auditBuilder({ builder }: Derivation): Seen[] {
  const seen = decodeByteString(builder)
  if (seen.startsWith('builtin:')) return [{ kind: 'builtin-builder', field: 'builder', seen }]
  // Some builders are relative: to the build directory, where inputs may have put them.
  const isInside = storePathOf(seen) !== undefined || !seen.startsWith('/')
  return isInside ? [] : [{ kind: 'host-builder', field: 'builder', seen }]
}

function auditFetch(derivation: Derivation, attributes: Attributes): Seen[] {
  const output = derivation.outputs.get('out')
  if (output?.kind !== 'fixed') return []
  const { method, hash } = output.address
  const what = formatMethodAndAlgorithm(method, hash.algorithm)
  const seen: Seen[] = []
  for (const name of ['url', 'urls']) {
    const field = attributes.fieldOf(name)
    for (const url of attributes.strings(name)) {
      const shown = redactUrls(url)
      const host = hostOf(url) ?? 'no host'
      seen.push({ kind: 'fixed-output', field, seen: `${what} from ${host}: ${shown}` })
      if (isInsecure(url)) seen.push({ kind: 'insecure-url', field, seen: shown })
    }
  }
  if (seen.length === 0)
    seen.push({ kind: 'unknown-origin', field: 'outputs.out', seen: `${what} from no url` })
  return seen
}

function auditSandbox(derivation: Derivation, attributes: Attributes): Seen[] {
  const seen: Seen[] = []
  const add = (kind: Seen['kind'], name: string, what: string): void => {
    seen.push({ kind, field: attributes.fieldOf(name), seen: what })
  }
  if (attributes.boolean('__noChroot')) add('no-chroot', '__noChroot', 'true')
  for (const name of HOST_DEPENDENCIES) {
    const what = attributes.string(name) ?? attributes.strings(name).join(' ')
    if (what !== '' && what !== 'false') add('host-dependency', name, what)
  }
  // Elsewhere Nix ignores the attribute.
  if (['fixed', 'impure'].includes(derivationKind(derivation))) {
    const variables = attributes.strings('impureEnvVars').filter((name) => !PROXIES.test(name))
    if (variables.length > 0) add('impure-environment', 'impureEnvVars', variables.join(' '))
  }
  const features = attributes.strings('requiredSystemFeatures')
  const special = features.filter((name) => name !== 'big-parallel' && name !== 'recursive-nix')
  if (features.includes('recursive-nix'))
    add('recursive-nix', 'requiredSystemFeatures', 'recursive-nix')
  if (special.length > 0) add('system-features', 'requiredSystemFeatures', special.join(' '))
  // Not true, where it stands: the default is true.
  if (attributes.has('allowSubstitutes') && !attributes.boolean('allowSubstitutes'))
    add('no-substitutes', 'allowSubstitutes', 'false')
  return seen
}

function auditReferences(attributes: Attributes): Seen[] {
  const seen: Seen[] = []
  const add = (kind: Seen['kind'], name: string, what: string): void => {
    seen.push({ kind, field: attributes.fieldOf(name), seen: what })
  }
  const discarded = attributes.raw('unsafeDiscardReferences')
  // Nix reads it from structured attributes alone; the names of outputs are its keys.
  if (attributes.structured && discarded !== null && typeof discarded === 'object') {
    const outputs = Object.entries(discarded).filter(([, on]) => on !== false)
    if (outputs.length > 0)
      add(
        'discarded-references',
        'unsafeDiscardReferences',
        outputs.map(([name]) => name).join(' '),
      )
  }
  const graph = attributes.raw('exportReferencesGraph')
  if (graph !== undefined) {
    const names =
      graph !== null && typeof graph === 'object'
        ? Object.keys(graph)
        : attributes.strings('exportReferencesGraph').filter((_, index) => index % 2 === 0)
    if (names.length > 0) add('embedded-closure', 'exportReferencesGraph', names.join(' '))
  }
  for (const name of REFERENCE_LIMITS)
    if (attributes.has(name)) add('reference-limits', name, 'set')
  return seen
}
