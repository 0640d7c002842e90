// A process that prints JSON lines and takes lines on standard input.
import { spawn, type ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'

/** What a program printed. */
export type Line = Readonly<Record<string, unknown>>

/** Ends with whoever holds it. */
export class Program implements AsyncDisposable {
  readonly child: ChildProcess
  readonly #lines: Line[] = []
  readonly #ended: Promise<void>
  #complaints = ''
  #wake: () => void = () => undefined

  constructor([file = '', ...args]: readonly string[]) {
    this.child = spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    this.child.stdin?.on('error', () => undefined) // it has ended, which shows when its answer is awaited
    createInterface({ input: this.child.stdout! }).on('line', (line) => {
      if (line.startsWith('{')) this.#lines.push(JSON.parse(line) as Line)
      this.#wake()
    })
    this.child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.#complaints = (this.#complaints + text).slice(-4000)
    })
    this.#ended = new Promise((resolve) => {
      this.child.once('close', () => {
        this.#wake()
        resolve()
      })
    })
  }

  /** The end of what it wrote on standard error: of a broker or an agent, its log. */
  get complaints(): string {
    return this.#complaints
  }

  /** The next line it prints. */
  async next(): Promise<Line> {
    for (;;) {
      const line = this.#lines.shift()
      if (line !== undefined) return line
      if (this.child.exitCode !== null || this.child.signalCode !== null)
        throw new Error(`${this.child.spawnargs.at(-1)} ended: ${this.#complaints}`)
      await new Promise<void>((resolve) => (this.#wake = resolve))
    }
  }

  /** The next line that fits; those before it are gone. */
  async nextOf(fits: (line: Line) => boolean): Promise<Line> {
    for (;;) {
      const line = await this.next()
      if (fits(line)) return line
    }
  }

  /** Gives a command and waits for its answer. */
  async tell(command: string): Promise<Line> {
    this.child.stdin?.write(`${command}\n`)
    const line = await this.next()
    if ('failed' in line) throw new Error(`${command}: ${String(line['failed'])}`)
    return line
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.child.kill('SIGTERM')
    const timer = setTimeout(() => this.child.kill('SIGKILL'), 5000)
    await this.#ended
    clearTimeout(timer)
  }
}

/** Waits until `holds`; the test's own time limit ends what never does. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await sleep(10)
}
