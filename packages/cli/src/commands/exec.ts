import { command } from '../command.ts'
import { CliError, EXIT, type ExitCode } from '../error.ts'
import { findAccount } from '../unit/account.ts'
import { launchUnit } from '../unit/launch.ts'

/** Names of units and instances; the name is also that of a cgroup and a file. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/

export const exec = command({
  summary: 'Start a unit with a recorded launch contract (root).',
  positionals: '-- CMD...',
  description: [
    'Runs CMD, an absolute path, in a cgroup of its own as the given user, with no-new-privs, no ' +
      'supplementary groups and an environment that holds PATH and what --env says. What was started is ' +
      'recorded where only root can write, so that the agent can tell what an interpreter was told to run. Its ' +
      'working directory is /; standard input and outputs are ours, and no other open file.',
    'Signals are passed on to CMD, SIGINT and SIGQUIT to its process group, as a terminal does. The exit code is that of CMD, 128 + N where signal N ended it; where CMD did not ' +
      'start, a line says why and the code is 2 or 3. Whatever is left of the unit ends with CMD.',
  ],
  options: {
    user: { type: 'string', value: 'USER', required: true, help: 'user to run as, name or number' },
    group: { type: 'string', value: 'GROUP', help: "group to run as instead of the user's" },
    name: { type: 'string', value: 'NAME', help: "name of the unit instead of CMD's" },
    instance: { type: 'string', value: 'ID', help: 'tells several units of one name apart' },
    env: { type: 'string', value: 'K=V', multiple: true, help: 'set an environment variable' },
    'units-dir': {
      type: 'string',
      value: 'DIR',
      default: '/run/bagcheck-units',
      environment: 'BAGCHECK_UNITS_DIR',
      help: 'where the agent looks for records',
    },
    'cgroup-parent': {
      type: 'string',
      value: 'DIR',
      environment: 'BAGCHECK_CGROUP_PARENT',
      help: "where to make the unit's cgroup; default: bagcheck below the unified hierarchy",
    },
  },
  examples: [
    'bagcheck exec --name orders --user orders -- /nix/store/…-orders-1.0/bin/node --jitless \\',
    '    /nix/store/…-orders-1.0/lib/orders.mjs',
  ],
  run: async ({ signal }, values, args): Promise<ExitCode> => {
    const [program = '', ...rest] = args
    if (!program.startsWith('/'))
      throw new CliError('USAGE', `CMD must be an absolute path, not ${JSON.stringify(program)}`)
    const name = values.name ?? program.slice(program.lastIndexOf('/') + 1)
    const instance = values.instance ?? ''
    for (const part of instance === '' ? [name] : [name, instance])
      if (!NAME.test(part))
        throw new CliError(
          'USAGE',
          `${JSON.stringify(part)} is not a name of a unit; --name takes letters, digits, ".", "_" and "-"`,
        )
    const account = await findAccount(values.user, values.group)
    if (process.getuid?.() !== 0)
      throw new CliError('NOT_ROOT', 'bagcheck exec must be run by root', { exit: EXIT.failed })
    const launch = {
      name,
      instance,
      account,
      program,
      arguments: rest,
      environment: { PATH: '/usr/bin:/bin', ...parseEnvironment(values.env) },
      unitsDirectory: values['units-dir'],
      cgroupParent: values['cgroup-parent'],
    }
    const code = await launchUnit(launch, signal)
    return code as ExitCode // the unit's own; any number that a process can return
  },
})

function parseEnvironment(assignments: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    assignments.map((text) => {
      const [, name, value] = /^([A-Za-z_][A-Za-z0-9_]*)=([^\0]*)$/s.exec(text) ?? []
      if (name === undefined || value === undefined)
        throw new CliError('USAGE', `--env takes NAME=VALUE, not ${JSON.stringify(text)}`)
      return [name, value]
    }),
  )
}
