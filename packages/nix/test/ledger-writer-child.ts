// Writes record after record until it is killed, and says after each which one has been flushed. All parts
// of record N are N, so that a record put together from two of them shows itself.
import { writeSync } from 'node:fs'
import { openLedger } from '@bagcheck/nix'
import { fileHashesOf, recordOf, RECORD_PATHS } from './ledger-records.ts'

const [file = '', first = '1'] = process.argv.slice(2)
const ledger = openLedger(file)
for (let number = Number(first); ; number++) {
  for (const path of RECORD_PATHS) ledger.record(path, recordOf(number), fileHashesOf(number))
  ledger.flush()
  writeSync(1, `${number}\n`)
}
