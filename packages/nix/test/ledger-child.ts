// Verifies a closure with a ledger, writes it, says so, and goes on until it is killed.
import {
  openLedger,
  openNixDatabase,
  parseStorePath,
  readClosure,
  verifyClosure,
} from '@bagcheck/nix'

const [file = '', root = ''] = process.argv.slice(2)
const manifest = await readClosure(openNixDatabase(), parseStorePath(root))
const ledger = openLedger(file)
await verifyClosure(manifest, { ledger, now: Date.now })
ledger.flush()
process.stdout.write('written\n')
for (;;) {
  await verifyClosure(manifest, { ledger, full: true, now: Date.now })
  ledger.flush()
}
