// `npm run interop`: the tests against programs of others that are downloaded for it, such as newer releases
// of Nix. What cannot be had is skipped, and the reason is printed.
import { enterPrivateRoot } from '../packages/cli/src/demo/private-root.ts'

process.env['BAGCHECK_INTEROP'] = '1'
const vitest = [
  process.execPath,
  'node_modules/.bin/vitest',
  'run',
  '--project',
  'system',
  'interop',
]
process.exit(await enterPrivateRoot([...vitest, ...process.argv.slice(2)]))
