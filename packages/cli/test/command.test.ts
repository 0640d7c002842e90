import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import {
  command,
  findCommand,
  group,
  nearest,
  parseOptions,
  type Command,
  type Group,
} from '../src/command.ts'
import { CliError } from '../src/error.ts'
import { help } from '../src/help.ts'
import { TABLE } from '../src/table.ts'
import { run } from './transcript.ts'

/** Every command and group with the words that lead to it. */
function walk(target: Group, words: readonly string[] = []): [string, Command | Group][] {
  return Object.entries(target.commands).flatMap(([word, entry]): [string, Command | Group][] => {
    const here = [...words, word]
    const below = entry.kind === 'group' ? walk(entry, here) : []
    return [[here.join(' '), entry], ...below]
  })
}

const all = walk(TABLE)

describe('every command', () => {
  test.each(all)('"%s" has help that fits a terminal and exits with 0', async (words) => {
    const { code, stdout, stderr } = await run([...words.split(' '), '--help'])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toContain(`Usage:`)
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(110)
  })

  test.each(all)('"%s" says what it does in one sentence', (_words, entry) => {
    expect(entry.summary).toMatch(/^[A-Z].*\.$/)
    expect(entry.summary).not.toMatch(/\. /)
  })

  test.each(all)(
    '"%s" refuses an option that it does not have, with exit code 2',
    async (words) => {
      const { code, stdout, stderr } = await run([...words.split(' '), '--no-such-option'])
      expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
      expect(stderr).toMatch(/^bagcheck: USAGE: /)
    },
  )

  test('the help of "bagcheck" names all of them', async () => {
    const { stdout } = await run(['--help'])
    for (const word of Object.keys(TABLE.commands)) expect(stdout).toContain(`  ${word}`)
  })
})

describe('bagcheck itself', () => {
  test.each([['--version'], ['version']])('says its version to %s', async (word) => {
    const { version } = JSON.parse(
      readFileSync(join(import.meta.dirname, '../package.json'), 'utf8'),
    ) as { version: string }
    expect(await run([word])).toEqual({ code: 0, stdout: `bagcheck ${version}\n`, stderr: '' })
  })

  test('takes help as a word too', async () => {
    for (const words of [[], ['policy'], ['policy', 'sign']])
      expect(await run(['help', ...words])).toEqual(await run([...words, '--help']))
  })
})

const toy = command({
  summary: 'A toy.',
  positionals: 'A [B]',
  options: {
    needed: { type: 'string', required: true, help: 'needed' },
    many: { type: 'string', multiple: true, help: 'many' },
    from: { type: 'string', environment: 'FROM', default: 'nowhere', help: 'from' },
    flag: { type: 'boolean', help: 'flag' },
  },
  run: async () => {},
})

describe('options', () => {
  const parse = (argv: string[], env = {}): Record<string, unknown> =>
    parseOptions('toy', toy, argv, env).values

  test('an option beats the environment, which beats the default', () => {
    const argv = ['a', '--needed', 'x']
    expect(parse(argv)['from']).toBe('nowhere')
    expect(parse(argv, { FROM: 'env' })['from']).toBe('env')
    expect(parse([...argv, '--from', 'here'], { FROM: 'env' })['from']).toBe('here')
  })

  test('what is not given is false, empty or undefined, never missing', () => {
    expect(parse(['a', '--needed', 'x'])).toMatchObject({ flag: false, many: [] })
    expect(parse(['a', '--needed', 'x', '--many', '1', '--many', '2'])['many']).toEqual(['1', '2'])
  })

  test.each([
    ['a required option is missing', ['a'], /needs --needed/],
    ['an argument is missing', ['--needed', 'x'], /needs A \[B\]/],
    ['there is an argument too many', ['a', 'b', 'c', '--needed', 'x'], /"c" is one too many/],
    ['an option has no value', ['a', '--needed'], /argument missing/],
    ['a flag has a value', ['a', '--needed', 'x', '--flag=1'], /does not take an argument/],
  ])('%s: refused as usage', (_what, argv, message) => {
    expect(() => parse(argv)).toThrow(CliError)
    expect(() => parse(argv)).toThrow(message)
  })

  test('after -- everything is an argument', () => {
    const open = command({ summary: 'A toy.', positionals: '-- CMD...', run: async () => {} })
    expect(parseOptions('toy', open, ['--', 'ls', '--json'], {})).toMatchObject({
      args: ['ls', '--json'],
      json: false,
    })
  })
})

describe('finding a command', () => {
  const table = group('Toys.', { toy, box: group('A box.', { inner: toy }, toy) })

  test('an unknown word is refused, with the nearest one where one is near', () => {
    expect(() => findCommand(table, ['tyo'])).toThrow('did you mean "bagcheck toy"?')
    expect(() => findCommand(table, ['elephant'])).toThrow(
      /^no command "elephant" in "bagcheck"; see "bagcheck --help"$/,
    )
  })

  test('a group with a command of its own takes what is none of its commands', () => {
    expect(findCommand(table, ['box', 'a'])).toMatchObject({ name: 'bagcheck box', rest: ['a'] })
    expect(findCommand(table, ['box', 'inner', 'a']).name).toBe('bagcheck box inner')
  })

  test('names of Object.prototype are no commands', () => {
    expect(() => findCommand(table, ['constructor'])).toThrow(/no command/)
  })

  test('nearest looks two edits far', () => {
    expect(nearest('verfy', ['verify', 'export'])).toBe('verify')
    expect(nearest('vrify', ['verify', 'export'])).toBe('verify')
    expect(nearest('xyz', ['verify', 'export'])).toBeUndefined()
  })

  test('the help of a group shows its own command too', () => {
    const lines = help(findCommand(table, ['box', '--help']))
    expect(lines).toContain('  bagcheck box [options] A [B]')
  })
})

describe('errors', () => {
  test('with --json an error is one line of JSON on standard error', async () => {
    const { code, stderr } = await run(['keygn', '--json'])
    expect(code).toBe(2)
    expect(JSON.parse(stderr)).toMatchObject({ code: 'USAGE' })
  })

  test('--json after -- is an argument of the unit, not ours', async () => {
    const { stderr } = await run(['exec', '--', 'ls', '--json'])
    expect(stderr).toMatch(/^bagcheck: USAGE: /)
  })

  test('a file that is not there: coded, exit code 3', async () => {
    const { code, stderr } = await run(['evidence', 'verify', '/no/such/file'])
    expect(code).toBe(3)
    expect(stderr).toMatch(/^bagcheck: FILE_UNREADABLE: \/no\/such\/file cannot be read/)
  })

  test('a broker that is not there: coded, exit code 3', async () => {
    const { code, stderr } = await run(['node', 'list', '--admin', '/no/such/socket'])
    expect(code).toBe(3)
    expect(stderr).toMatch(/^bagcheck: BROKER_UNREACHABLE: /)
  })

  test('an agent that is not there: coded, exit code 3', async () => {
    const argv = ['token', '--audience', 'https://a.test', '--agent', '/no/such/socket']
    const { code, stderr } = await run(argv)
    expect(code).toBe(3)
    expect(stderr).toMatch(/^bagcheck: AGENT_UNREACHABLE: agent at \/no\/such\/socket: /)
  })
})
