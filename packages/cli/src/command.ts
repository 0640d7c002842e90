// The command table: groups, commands with typed options, and the help that reads from the same table,
// so that what is documented is what is parsed. A command gets its parsed options and a context that
// holds all of the outside world it may touch; it returns an exit code and prints through the context.
import { parseArgs, type ParseArgsConfig } from 'node:util'
import { CliError, EXIT, type ExitCode } from './error.ts'

/** One option of a command. */
export interface Option {
  readonly type: 'string' | 'boolean'
  readonly help: string
  /** Name of the value in help: `FILE`, `URL`. */
  readonly value?: string
  readonly multiple?: true
  readonly required?: true
  readonly default?: string
  /** Environment variable that is read when the option is not given. */
  readonly environment?: string
}

type Value<O extends Option> = O extends { type: 'boolean' }
  ? boolean
  : O extends { multiple: true }
    ? readonly string[]
    : O extends { required: true } | { default: string }
      ? string
      : string | undefined

export type Options = Readonly<Record<string, Option>>
export type Values<O extends Options> = { readonly [K in keyof O]: Value<O[K]> }

/** Everything outside that a command may touch besides files and sockets that its options name. */
export interface Context {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly json: boolean
  readonly signal: AbortSignal
  readonly now: () => Date
  /** One line to standard output. */
  readonly print: (line: string) => void
  /** The result: `value` as one line of JSON with --json, `lines` otherwise. */
  readonly result: (value: unknown, lines: string | readonly string[]) => void
  /** One line to standard error. */
  readonly warn: (line: string) => void
  /** Replaces the progress line; shown on a terminal only. */
  readonly progress: (line: string) => void
  /** True if standard output is a terminal that shows colours. */
  readonly color: boolean
  /** Runs another command of the table and returns what it printed. */
  readonly invoke: (
    argv: readonly string[],
    env: Context['env'],
  ) => Promise<{ code: ExitCode; stdout: string; stderr: string }>
}

export interface Command {
  readonly kind: 'command'
  readonly summary: string
  /** Positional arguments as in help: `ROOT`, `[NAME]`, `-- CMD...`. */
  readonly positionals: string
  readonly description: readonly string[]
  readonly options: Options
  readonly examples: readonly string[]
  readonly run: (context: Context, values: never, args: readonly string[]) => Promise<ExitCode>
  readonly least: number
  readonly most: number
}

export interface Group {
  readonly kind: 'group'
  readonly summary: string
  readonly commands: Readonly<Record<string, Command | Group>>
  /** Run when the first argument is none of the commands. */
  readonly fallback?: Command
}

/** A command; the types of `values` follow from `options`. */
export function command<const O extends Options>(definition: {
  summary: string
  positionals?: string
  description?: readonly string[]
  options?: O
  examples?: readonly string[]
  run: (context: Context, values: Values<O>, args: readonly string[]) => Promise<ExitCode | void>
}): Command {
  const positionals = definition.positionals ?? ''
  const words = positionals
    .split(' ')
    .filter((word) => word !== '' && word !== '--' && word !== '|')
  const open = words.some((word) => word.endsWith('...'))
  return {
    kind: 'command',
    summary: definition.summary,
    positionals,
    description: definition.description ?? [],
    options: definition.options ?? {},
    examples: definition.examples ?? [],
    least: words.filter((word) => !word.startsWith('[')).length,
    most: open ? Infinity : words.length,
    run: async (context, values, args) =>
      (await definition.run(context, values as Values<O>, args)) ?? EXIT.ok,
  }
}

export function group(
  summary: string,
  commands: Readonly<Record<string, Command | Group>>,
  fallback?: Command,
): Group {
  return { kind: 'group', summary, commands, ...(fallback ? { fallback } : {}) }
}

/** What `argv` asks for, found in the table. */
export interface Invocation {
  readonly name: string
  readonly target: Command | Group
  readonly rest: readonly string[]
}

/** Walks the table along `argv`. @throws {CliError} USAGE – no such command, with a suggestion. */
export function findCommand(table: Group, argv: readonly string[]): Invocation {
  let target: Command | Group = table
  let name = 'bagcheck'
  let rest = argv
  while (target.kind === 'group') {
    const word: string | undefined = rest[0]
    if (word === undefined || word === '--help' || word === '-h') break
    const next: Command | Group | undefined = Object.hasOwn(target.commands, word)
      ? target.commands[word]
      : undefined
    if (next === undefined) {
      if (word.startsWith('-') || target.fallback !== undefined) break
      const near = nearest(word, Object.keys(target.commands))
      const hint =
        near === undefined ? `; see "${name} --help"` : `; did you mean "${name} ${near}"?`
      throw new CliError('USAGE', `no command ${JSON.stringify(word)} in "${name}"${hint}`)
    }
    target = next
    name = `${name} ${word}`
    rest = rest.slice(1)
  }
  return { name, target, rest }
}

/** Parses the options of one command. @throws {CliError} USAGE */
export function parseOptions(
  name: string,
  target: Command,
  argv: readonly string[],
  env: Context['env'],
): { values: never; args: string[]; json: boolean; help: boolean } {
  const options: NonNullable<ParseArgsConfig['options']> = {
    json: { type: 'boolean' },
    help: { type: 'boolean', short: 'h' },
    ...(target.options['output'] ? { output: { type: 'string', short: 'o' } } : {}),
  }
  for (const [key, option] of Object.entries(target.options)) {
    options[key] = {
      ...options[key],
      type: option.type,
      ...(option.multiple && { multiple: true }),
    }
  }
  let parsed
  try {
    parsed = parseArgs({ args: [...argv], options, allowPositionals: true, strict: true })
  } catch (error) {
    const [problem = 'bad options'] = (error as Error).message.split('. ')
    throw new CliError('USAGE', `${problem}; see "${name} --help"`)
  }
  const values: Record<string, unknown> = { ...parsed.values }
  const { positionals } = parsed
  const asked = { json: values['json'] === true, help: values['help'] === true }
  if (asked.help) return { values: {} as never, args: positionals, ...asked }
  for (const [key, option] of Object.entries(target.options)) {
    if (option.type === 'boolean') values[key] ??= false
    else if (option.multiple) values[key] ??= []
    else values[key] ??= (option.environment && env[option.environment]) || option.default
    if (option.required && (values[key] === undefined || (values[key] as string[]).length === 0))
      throw new CliError('USAGE', `"${name}" needs --${key} ${option.value ?? ''}`.trimEnd())
  }
  if (positionals.length < target.least)
    throw new CliError('USAGE', `"${name}" needs ${target.positionals}`)
  if (positionals.length > target.most) {
    const extra = JSON.stringify(positionals[target.most])
    throw new CliError(
      'USAGE',
      `"${name}" takes ${target.positionals || 'no arguments'}; ${extra} is one too many`,
    )
  }
  return { values: values as never, args: positionals, ...asked }
}

/** The candidate that `word` is a slip of: one edit, or two after the same first letter. */
export function nearest(word: string, candidates: readonly string[]): string | undefined {
  const ranked = candidates
    .map((candidate) => ({ candidate, edits: editDistance(word, candidate) }))
    .toSorted((a, b) => a.edits - b.edits)
  const best = ranked[0]
  const most = best?.candidate[0] === word[0] ? 2 : 1
  return best !== undefined && best.edits <= most ? best.candidate : undefined
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] ?? 0) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(replaced, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1))
    }
    row = next
  }
  return row[b.length] ?? 0
}
