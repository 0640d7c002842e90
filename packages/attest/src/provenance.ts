// The second statement of a build: SLSA provenance v1 about the same two subjects, for tools that
// know SLSA and not us. It says less than nix-closure/v1 and nothing that contradicts it; what is
// unknown there is absent here, as SLSA wants it.
import type { ClosureManifest, FileList } from '@bagcheck/nix'
import { formatBundle } from './bundle.ts'
import { closureSubjects } from './closure-attestation.ts'
import type { ClosureFacts, FlakeInput } from './closure-predicate.ts'
import { formatEnvelope, signEnvelope, type Envelope } from './dsse.ts'
import type { SigningKey } from './keys.ts'
import { formatStatement, type Statement } from './statement.ts'
import type { JsonObject } from './strict-json.ts'
import {
  NIX_DERIVATION_BUILD_TYPE_V1,
  NIX_FLAKE_BUILD_TYPE_V1,
  SLSA_PROVENANCE_V1,
  STATEMENT_TYPE,
} from './uris.ts'

export interface ProvenanceInput {
  readonly manifest: ClosureManifest
  readonly files: FileList
  readonly facts: ClosureFacts
  readonly key: SigningKey
  /** URI of the platform that built; signer policy binds keys to it. */
  readonly builderId: string
  /** Attribute of the flake that was built, such as `packages.x86_64-linux.default`. */
  readonly attribute?: string
  /** The builder's own name for this run. */
  readonly invocationId?: string
  /** RFC 3339, UTC. */
  readonly startedOn?: string
  /** RFC 3339, UTC. */
  readonly finishedOn?: string
}

export interface Provenance {
  readonly statement: Statement
  readonly envelope: Envelope
  /** A Sigstore bundle of it. */
  readonly bundle: string
  /** One line for NAME.intoto.jsonl. */
  readonly intotoJsonl: string
}

/**
 * Signs the SLSA provenance of a closure.
 *
 * @throws {TypeError} a builder id that is no URI
 * @see https://slsa.dev/spec/v1.2/build-provenance
 */
export function createProvenance(input: ProvenanceInput): Provenance {
  if (!URL.canParse(input.builderId))
    throw new TypeError(`expected a URI as builder id, saw ${JSON.stringify(input.builderId)}`)
  const statement: Statement = {
    _type: STATEMENT_TYPE,
    subject: closureSubjects(input.manifest),
    predicateType: SLSA_PROVENANCE_V1,
    predicate: {
      buildDefinition: buildDefinition(input),
      runDetails: {
        builder: { id: input.builderId },
        metadata: present({
          invocationId: input.invocationId,
          startedOn: input.startedOn,
          finishedOn: input.finishedOn,
        }),
        byproducts: [
          { name: 'closure.manifest', digest: { sha256: input.manifest.digest } },
          { name: 'closure.files', digest: { sha256: input.files.digest } },
        ],
      },
    },
  }
  const envelope = signEnvelope(formatStatement(statement), [input.key])
  return {
    statement,
    envelope,
    bundle: formatBundle(envelope),
    intotoJsonl: `${formatEnvelope(envelope)}\n`,
  }
}

function buildDefinition({ facts, attribute }: ProvenanceInput): JsonObject {
  const { flake, system, drvPath, output } = facts
  const isFlake = flake.url.value !== null
  return {
    buildType: isFlake ? NIX_FLAKE_BUILD_TYPE_V1 : NIX_DERIVATION_BUILD_TYPE_V1,
    externalParameters: present(
      isFlake
        ? { flakeRef: flake.url.value, attr: attribute, system: system.value }
        : { drvPath: drvPath.value, output: output.value, system: system.value },
    ),
    internalParameters: present({
      nixVersion: facts.build.nixVersion.value,
      sandbox: facts.build.sandbox.value,
    }),
    resolvedDependencies: [
      ...(flake.url.value === null
        ? []
        : [
            dependency({
              name: 'self',
              url: flake.url.value,
              rev: flake.rev.value,
              narHash: flake.narHash.value,
            }),
          ]),
      ...(flake.inputs.value ?? []).map(dependency),
    ],
  }
}

function dependency(input: Omit<FlakeInput, 'lastModified'>): JsonObject {
  return present({
    name: input.name,
    uri: spdxUri(input.url),
    digest: gitCommit(input.rev),
    annotations: input.narHash === null ? null : { narHash: input.narHash },
  })
}

// A revision of git in the form that a digest set allows: 40 or 64 hex digits.
function gitCommit(rev: string | null): JsonObject | null {
  return rev !== null && /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/.test(rev) ? { gitCommit: rev } : null
}

// SLSA names repositories by SPDX download locations; other references stay as Nix spells them.
function spdxUri(url: string): string {
  return url.replace(/^github:([^/?]+)\/([^/?]+)(?:\/.*)?$/, 'git+https://github.com/$1/$2')
}

function present(members: Readonly<Record<string, unknown>>): JsonObject {
  return Object.fromEntries(
    Object.entries(members).filter(([, value]) => value !== null && value !== undefined),
  )
}
