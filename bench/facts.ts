// Facts of an ordinary request: one process with 12 mapped files, everything as policy wants it.
import { mappedFile, runningFacts, type TestFacts } from '../packages/testkit/src/index.ts'
import type { Service } from './closures.ts'
import { AUDIENCE } from './installation.ts'

/** What an agent states about a running `service`, checked at `nowSeconds`. */
export function factsOf(service: Service, nowSeconds: number): TestFacts {
  const { name, root, closure, executable, libraries, script } = service
  const files = [executable, ...libraries].map(({ path, sha256 }, index) =>
    mappedFile(path, sha256, { inode: `${100_000 + index}` }),
  )
  const [first = mappedFile(executable.path, executable.sha256), ...others] = files
  const running = {
    ...{ name, audience: AUDIENCE, root, closureDigest: closure.manifest.digest },
    ...{ executable: first, libraries: others, script: script.path },
  }
  return runningFacts(running, nowSeconds)
}
