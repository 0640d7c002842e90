// Where the demo plays: its directories, the programs it runs, and the commands that it gives.
import { chmodSync, mkdirSync, mkdtempSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { Context } from '../command.ts'
import { CliError } from '../error.ts'
import { startActor, type Actor } from './actor.ts'
import { nixEnvironment } from './build.ts'
import { PRIVATE_ROOT_VARIABLE } from './private-root.ts'
import { programCommand } from './programs.ts'

export const INSTALLATION = 'demo'

/** Where everything of one demo lies. */
export interface Places {
  readonly directory: string
  readonly trust: string
  readonly keys: string
  readonly attestations: string
  readonly agentSocket: string
  readonly adminSocket: string
  readonly unitsDirectory: string
}

/** Makes the directories, below the scratch directory of the private root. */
export function makePlaces(env: Context['env']): Places {
  const scratch = env[PRIVATE_ROOT_VARIABLE]
  if (scratch === undefined) {
    throw new CliError(
      'NOT_ROOT',
      'the demo makes a /nix of its own, which needs root: run it with sudo',
    )
  }
  // The services and the agent's front run as other users.
  chmodSync(scratch, 0o711)
  const directory = mkdtempSync(join(scratch, 'demo-'))
  chmodSync(directory, 0o755)
  const places = {
    directory,
    trust: join(directory, 'trust'),
    keys: join(directory, 'trust/keys'),
    attestations: join(directory, 'attestations'),
    agentSocket: join(directory, 'agent/agent.sock'),
    adminSocket: join(directory, 'broker/admin.sock'),
    unitsDirectory: join(directory, 'units'),
  }
  mkdirSync(join(directory, 'public'), { mode: 0o755 })
  for (const path of [places.trust, places.unitsDirectory, join(directory, 'broker')])
    mkdirSync(path, { mode: 0o700 })
  return places
}

/** Runs our own commands and programs, and ends what still runs. */
export class Stage {
  readonly places: Places
  readonly #context: Context
  readonly #actors: Actor[] = []

  constructor(places: Places, context: Context) {
    this.places = places
    this.#context = context
  }

  /** Runs one of our commands in this process and returns what it says with --json. */
  async bagcheck<T = Record<string, unknown>>(...args: string[]): Promise<T> {
    const { code, stdout, stderr } = await this.attempt(...args)
    if (code !== 0) throw new CliError('DEMO_STEP', `bagcheck ${args.join(' ')}: ${stderr.trim()}`)
    return JSON.parse(stdout) as T
  }

  /** As {@link bagcheck}, where a refusal is what is wanted. */
  attempt(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
    const environment = { ...nixEnvironment(), BAGCHECK_ADMIN_SOCKET: this.places.adminSocket }
    return this.#context.invoke([...args, '--json'], environment)
  }

  /** Starts one of our programs. */
  start(name: string, program: 'bagcheck' | 'broker' | 'agent', ...args: string[]): Actor {
    const actor = startActor(name, [...programCommand(program), ...args], this.#context.signal)
    this.#actors.push(actor)
    return actor
  }

  /** Ends everything, the last started first. */
  async clear(): Promise<void> {
    for (const actor of this.#actors.toReversed()) await actor.stop()
  }
}

/** A loopback port that is free now: the issuer's name holds it, so it is needed before the broker. */
export function findFreePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })
}
