import { AUDIT_SEVERITIES, auditDerivations, auditSources, verifyOutputPaths } from '@bagcheck/nix'
import { addSources, describeAudit } from '../closure/audit.ts'
import { openStoreNar } from '../closure/builds.ts'
import { DERIVATION_OPTIONS, loadDerivations } from '../closure/derivations.ts'
import { command } from '../command.ts'
import { CliError, EXIT } from '../error.ts'

export const closureAudit = command({
  summary: 'Look for impurities in how a closure is built: sandbox, fetches, hashes, secrets.',
  positionals: 'DRV|PATH|FILE',
  description: [
    'Reads the derivation, the one that built PATH, or FILE, as "nix derivation show -r" printed it, and all that ' +
      'it is built from; recomputes every output ' +
      'path; and lists what takes from "these inputs give this closure". Secrets are named and not shown.',
    'It sees what derivations say. Whether the sandbox was on, and what evaluation read, only the attestation ' +
      'of the build can tell.',
  ],
  options: {
    all: { type: 'boolean', help: 'show every finding, also those that are only worth knowing' },
    sources: {
      type: 'boolean',
      help: 'also look for secrets in every file of the sources that lie in the store',
    },
    'fail-on': {
      type: 'string',
      value: 'SEVERITY',
      help: `exit with 1 where there is a finding of this severity (${AUDIT_SEVERITIES.join(', ')}) or a graver one`,
    },
    ...DERIVATION_OPTIONS,
  },
  examples: [
    'bagcheck closure audit ./result',
    'bagcheck closure audit --fail-on high /nix/store/…-orders-1.0.drv',
  ],
  run: async ({ signal, result, progress }, values, [given = '']) => {
    const limit = values['fail-on']
    const gravest = AUDIT_SEVERITIES.findIndex((severity) => severity === limit)
    if (limit !== undefined && gravest < 0)
      throw new CliError(
        'USAGE',
        `--fail-on is one of ${AUDIT_SEVERITIES.join(', ')}, not "${limit}"`,
      )
    progress('reading derivations')
    const graph = await loadDerivations(given, values, signal)
    verifyOutputPaths(graph)
    const audit = auditDerivations(graph)
    const sources = values.sources ? await auditSources(graph, openStoreNar, signal) : undefined
    const found = sources ? addSources(audit, sources) : audit
    result(found, describeAudit(found, values.all))
    const grave = AUDIT_SEVERITIES.slice(0, gravest + 1).some(
      (severity) => found.counts[severity] > 0,
    )
    return grave ? EXIT.refused : EXIT.ok
  },
})
