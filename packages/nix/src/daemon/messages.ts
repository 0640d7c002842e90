// What the daemon says before it answers: log lines and activities until LAST or ERROR.
import { NixError, quote } from '../error.ts'
import type { WireReader } from './wire.ts'

const LAST = 0x616c7473
const ERROR = 0x63787470
const NEXT = 0x6f6c6d67
const START_ACTIVITY = 0x53545254
const STOP_ACTIVITY = 0x53544f50
const RESULT = 0x52534c54

const MAX_TEXT_BYTES = 1 << 20
const MAX_FIELDS = 1000
const MAX_TRACES = 1000
const MAX_CODE = 0xffffffff

/**
 * Reads up to the daemon's "done". Log output is dropped.
 *
 * @throws {NixError} DAEMON_ERROR – the daemon refused the operation; the connection is still good.
 * @throws {NixError} DAEMON_PROTOCOL, DAEMON_LIMIT – it is not.
 */
export async function readMessages(input: WireReader): Promise<void> {
  for (;;) {
    const message = await input.number(MAX_CODE, 'a message')
    switch (message) {
      case LAST:
        return
      case NEXT:
        await input.string(MAX_TEXT_BYTES, 'a log line')
        break
      case START_ACTIVITY:
        await input.skipNumber()
        await input.skipNumber()
        await input.skipNumber()
        await input.string(MAX_TEXT_BYTES, 'an activity')
        await readFields(input)
        await input.skipNumber()
        break
      case STOP_ACTIVITY:
        await input.skipNumber()
        break
      case RESULT:
        await input.skipNumber()
        await input.skipNumber()
        await readFields(input)
        break
      case ERROR:
        throw await readError(input)
      default:
        // READ and WRITE belong to operations that we never start.
        throw new NixError('DAEMON_PROTOCOL', `expected a message, got code ${message}`)
    }
  }
}

async function readFields(input: WireReader): Promise<void> {
  const count = await input.number(MAX_FIELDS, 'a count of fields')
  for (let index = 0; index < count; index++) {
    const type = await input.number(1, 'a field type')
    if (type === 0) await input.skipNumber()
    else await input.string(MAX_TEXT_BYTES, 'a field')
  }
}

/** The form since protocol 1.26. */
async function readError(input: WireReader): Promise<NixError> {
  await input.string(MAX_TEXT_BYTES, 'an error type')
  await input.skipNumber()
  await input.string(MAX_TEXT_BYTES, 'an error name')
  const message = await input.string(MAX_TEXT_BYTES, 'an error')
  await readNoPosition(input)
  const traces = await input.number(MAX_TRACES, 'a count of traces')
  for (let index = 0; index < traces; index++) {
    await readNoPosition(input)
    await input.string(MAX_TEXT_BYTES, 'a trace')
  }
  return new NixError('DAEMON_ERROR', `the Nix daemon refused: ${quote(message)}`)
}

async function readNoPosition(input: WireReader): Promise<void> {
  await input.number(0, 'no position')
}
