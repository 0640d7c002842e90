// One run of the command line: find, parse, run, and say what went wrong in one line.
import { findCommand, parseOptions, type Context, type Group } from './command.ts'
import { CliError, EXIT, type ExitCode } from './error.ts'
import { exitCodeOf } from './exit-code.ts'
import { help } from './help.ts'
import { CLI_VERSION } from './version.ts'

/** Where a run reads and writes. */
export interface Surroundings {
  readonly env: Context['env']
  readonly signal: AbortSignal
  readonly now: () => Date
  readonly stdout: (text: string) => void
  readonly stderr: (text: string) => void
  /** True if standard error is a terminal that shows progress. */
  readonly terminal: boolean
  /** True if standard output is a terminal that shows colours. */
  readonly color: boolean
}

/** Runs `argv` against the table and resolves to the exit code. Never throws. */
export async function runCli(
  table: Group,
  argv: readonly string[],
  surroundings: Surroundings,
): Promise<ExitCode> {
  // Wanted before parsing can fail, so that a usage error is JSON too where JSON was asked for.
  const end = argv.indexOf('--')
  const json = (end < 0 ? argv : argv.slice(0, end)).includes('--json')
  try {
    return await start(table, argv, surroundings)
  } catch (error) {
    return report(error, json, surroundings)
  }
}

async function start(
  table: Group,
  argv: readonly string[],
  surroundings: Surroundings,
): Promise<ExitCode> {
  const { env, signal, now, stdout, stderr, terminal, color } = surroundings
  if (argv[0] === '--version' || (argv[0] === 'version' && argv.length === 1)) {
    stdout(`bagcheck ${CLI_VERSION}\n`)
    return EXIT.ok
  }
  const invocation = findCommand(table, argv[0] === 'help' ? [...argv.slice(1), '--help'] : argv)
  const { name } = invocation
  let { target } = invocation
  const showHelp = (): ExitCode => {
    stdout(`${help(invocation).join('\n')}\n`)
    return EXIT.ok
  }
  if (target.kind === 'group') {
    const [word] = invocation.rest
    if (word === '--help' || word === '-h') return showHelp()
    const { fallback } = target
    if (fallback === undefined || (word === undefined && fallback.least > 0)) {
      const needed = fallback === undefined ? 'a command' : `${fallback.positionals} or a command`
      const what = word === undefined ? `needs ${needed}` : `does not take ${JSON.stringify(word)}`
      throw new CliError('USAGE', `"${name}" ${what}; see "${name} --help"`)
    }
    target = fallback
  }
  const { values, args, json, help: asked } = parseOptions(name, target, invocation.rest, env)
  if (asked) return showHelp()

  let shown = false
  const clear = (): void => {
    if (shown) stderr('\r\u001b[K')
    shown = false
  }
  const print = (line: string): void => {
    clear()
    stdout(`${line}\n`)
  }
  const context: Context = {
    env,
    json,
    signal,
    now,
    color,
    print,
    invoke: (words, environment) => capture(table, words, { ...surroundings, env: environment }),
    result: (value, lines) =>
      print(json ? JSON.stringify(value) : typeof lines === 'string' ? lines : lines.join('\n')),
    warn: (line) => {
      clear()
      stderr(`${line}\n`)
    },
    progress: (line) => {
      if (!terminal || json) return
      stderr(`\r\u001b[K${line}`)
      shown = true
    },
  }
  try {
    return await target.run(context, values, args)
  } finally {
    clear()
  }
}

/** Runs a command and keeps what it prints. */
async function capture(
  table: Group,
  argv: readonly string[],
  surroundings: Surroundings,
): Promise<{ code: ExitCode; stdout: string; stderr: string }> {
  const printed = { stdout: '', stderr: '' }
  const code = await runCli(table, argv, {
    ...surroundings,
    stdout: (text) => void (printed.stdout += text),
    stderr: (text) => void (printed.stderr += text),
    terminal: false,
    color: false,
  })
  return { code, ...printed }
}

/** Prints an error and returns the exit code that goes with it. */
function report(error: unknown, json: boolean, { stderr, signal }: Surroundings): ExitCode {
  const { code, message, detail } = error as { code?: unknown; message?: string; detail?: unknown }
  const name = typeof code === 'string' ? code : signal.aborted ? 'INTERRUPTED' : 'UNEXPECTED'
  const text = message ?? String(error)
  stderr(
    json
      ? `${JSON.stringify({ code: name, message: text, ...(detail === undefined ? {} : { detail }) })}\n`
      : `bagcheck: ${name}: ${text}\n`,
  )
  if (name === 'UNEXPECTED' && error instanceof Error && !json) stderr(`${error.stack ?? ''}\n`)
  return exitCodeOf(error)
}
