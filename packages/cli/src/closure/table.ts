// The commands about closures, which need none of the packages that the others do.
import { group, type Group } from '../command.ts'
import { closureAudit } from '../commands/closure-audit.ts'
import { closureCauses } from '../commands/closure-causes.ts'
import { closureClassify } from '../commands/closure-classify.ts'
import { closureDiff } from '../commands/closure-diff.ts'
import { closureManifest } from '../commands/closure-manifest.ts'
import { closureVerify } from '../commands/closure-verify.ts'
import { closureWhy } from '../commands/closure-why.ts'

/** `bagcheck closure`. */
export const CLOSURE: Group = group('Bags: what a root brings with it.', {
  manifest: closureManifest,
  verify: closureVerify,
  diff: closureDiff,
  why: closureWhy,
  audit: closureAudit,
  causes: closureCauses,
  classify: closureClassify,
})
