// Transcripts: `$ bagcheck …`, what it prints (standard output, then standard error marked with "! "), and
// `[exit N]` where N is not 0. They are documentation that is run. BAGCHECK_UPDATE=1 writes them anew.
import { readFileSync, writeFileSync } from 'node:fs'
import { runCli } from '../src/run.ts'
import { TABLE } from '../src/table.ts'

/** When the commands of a transcript run. */
export const NOW = new Date('2026-11-24T12:00:00Z')

/** Runs one command line in this process. */
export async function run(
  argv: readonly string[],
  env: Readonly<Record<string, string>> = {},
  signal: AbortSignal = new AbortController().signal,
): Promise<{ code: number; stdout: string; stderr: string }> {
  const printed = { stdout: '', stderr: '' }
  const code = await runCli(TABLE, argv, {
    env,
    signal,
    now: () => NOW,
    stdout: (text) => void (printed.stdout += text),
    stderr: (text) => void (printed.stderr += text),
    terminal: false,
    color: false,
  })
  return { code, ...printed }
}

/** The commands of a transcript. */
export function commandsOf(text: string): string[] {
  return text
    .split('\n')
    .filter((line) => line.startsWith('$ bagcheck'))
    .map((line) => line.slice('$ bagcheck'.length).trim())
}

/** Runs every command of a transcript and returns it as it would read now. */
export async function replay(file: string): Promise<{ seen: string; expected: string }> {
  const expected = readFileSync(file, 'utf8')
  const head = expected.slice(0, expected.indexOf('$ bagcheck'))
  const parts: string[] = []
  for (const line of commandsOf(expected)) {
    const { code, stdout, stderr } = await run(splitWords(line))
    const marked = stderr.replaceAll(/^(?=.)/gm, '! ')
    parts.push(
      `$ bagcheck ${line}`.trimEnd() +
        '\n' +
        stdout +
        marked +
        (code === 0 ? '' : `[exit ${code}]\n`),
    )
  }
  const seen = head + parts.join('\n')
  if (process.env['BAGCHECK_UPDATE'] === '1') writeFileSync(file, seen)
  return { seen, expected: process.env['BAGCHECK_UPDATE'] === '1' ? seen : expected }
}

function splitWords(line: string): string[] {
  return [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain ?? '')
}
