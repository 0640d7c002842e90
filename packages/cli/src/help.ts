// Help texts, from the command table alone.
import type { Command, Group, Invocation } from './command.ts'

const WIDTH = 92

/** The help of a command or a group, as lines. */
export function help({ name, target }: Pick<Invocation, 'name' | 'target'>): string[] {
  return target.kind === 'group' ? groupHelp(name, target) : commandHelp(name, target)
}

function groupHelp(name: string, target: Group): string[] {
  const rows = Object.entries(target.commands).map(([word, entry]): [string, string] => [
    entry.kind === 'group' ? `${word} …` : `${word} ${entry.positionals}`.trimEnd(),
    entry.summary,
  ])
  const lines = [
    target.summary,
    '',
    'Usage:',
    ...(target.fallback ? [`  ${name} [options] ${target.fallback.positionals}`.trimEnd()] : []),
    `  ${name} COMMAND [options]`,
    '',
    'Commands:',
    ...table(rows),
  ]
  if (target.fallback) lines.push('', ...commandHelp(name, target.fallback).slice(4))
  lines.push('', `"${name} COMMAND --help" says more about one of them.`)
  if (name === 'bagcheck') {
    lines.push('"bagcheck --version" prints the version.')
    lines.push('', 'Exit codes: 0 ok, 1 refused or mismatch, 2 usage, 3 could not run.')
  }
  return lines
}

function commandHelp(name: string, target: Command): string[] {
  const options = Object.entries(target.options).map(([key, option]): [string, string] => {
    const flag = key === 'output' ? '-o, --output' : `--${key}`
    const notes = [
      ...(option.required ? ['required'] : []),
      ...(option.multiple ? ['may be repeated'] : []),
      ...(option.default === undefined ? [] : [`default: ${option.default}`]),
      ...(option.environment === undefined ? [] : [`or $${option.environment}`]),
    ]
    return [
      option.type === 'boolean' ? flag : `${flag} ${option.value ?? 'VALUE'}`,
      notes.length === 0 ? option.help : `${option.help} (${notes.join('; ')})`,
    ]
  })
  options.push(['--json', 'print JSON'], ['-h, --help', 'print this'])
  return [
    target.summary,
    '',
    `Usage: ${name} [options] ${target.positionals}`.trimEnd(),
    ...(target.description.length === 0
      ? []
      : ['', ...target.description.flatMap((line) => wrap(line, WIDTH))]),
    '',
    'Options:',
    ...table(options),
    ...(target.examples.length === 0
      ? []
      : ['', 'Examples:', ...target.examples.map((e) => `  ${e}`)]),
  ]
}

/** Two columns; the second wraps under itself. */
function table(rows: readonly [string, string][]): string[] {
  const first = Math.min(34, Math.max(...rows.map(([left]) => left.length)))
  return rows.flatMap(([left, right]) => {
    const [head = '', ...more] = wrap(right, WIDTH - first - 4)
    const indent = ' '.repeat(first + 4)
    const lines = more.map((line) => indent + line)
    return left.length > first
      ? [`  ${left}`, indent + head, ...lines]
      : [`  ${left.padEnd(first)}  ${head}`, ...lines]
  })
}

function wrap(text: string, width: number): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + 1 + word.length > width) {
      lines.push(line)
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line]
}
