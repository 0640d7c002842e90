// Tells the story: one step after the other, what happens and what was seen. A step that does not go as
// told is said so, and the demo fails; where later steps stand on it, it ends there.
import type { Context } from '../command.ts'
import type { Step } from './chapter.ts'
import type { Scene } from './scene.ts'

/** What became of a step. */
export interface StepResult {
  readonly id: string
  readonly title: string
  readonly ok: boolean
  readonly seen: readonly string[]
  readonly milliseconds: number
  readonly facts?: unknown
}

/** What a step has to say when it went as told; `facts` are for --json. */
export interface Told {
  readonly seen: readonly string[]
  readonly facts?: unknown
}

const WIDTH = 96

/** For people: digests and store hashes by their first characters. --json has all of them. */
function shorten(text: string): string {
  return text
    .replaceAll(/\b([0-9a-f]{12})[0-9a-f]{52}\b/g, '$1…')
    .replaceAll(/(\/nix\/store\/[0-9a-z]{4})[0-9a-z]{28}-/g, '$1…-')
}

/** Lines of at most {@link WIDTH} where words allow it; what follows the first is indented as that is. */
function wrap(text: string): string[] {
  const indent = `${/^ */.exec(text)?.[0] ?? ''}  `
  const lines: string[] = []
  let line = ''
  for (const word of text.split(/(?<=\S) /)) {
    if (line !== '' && line.length + 1 + word.length > WIDTH) {
      lines.push(line)
      line = indent + word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, line]
}

/** Thrown when a step failed on which all others stand. */
export class StoryEnded extends Error {
  override readonly name = 'StoryEnded'
}

export class Teller {
  readonly results: StepResult[] = []
  readonly #context: Context

  constructor(context: Context) {
    this.#context = context
  }

  /** A heading between steps. */
  chapter(title: string): void {
    if (!this.#context.json) this.#context.print(`\n${this.#style('1', title)}`)
  }

  /** Plays one step; the failure of an essential one ends the story. */
  async step({ id, title, essential, play }: Step, scene: Scene): Promise<void> {
    const { signal, progress } = this.#context
    signal.throwIfAborted()
    progress(`  … ${title}`)
    const start = performance.now()
    const finish = (ok: boolean, seen: readonly string[], facts?: unknown): void => {
      const milliseconds = Math.round(performance.now() - start)
      this.#tell({ id, title, ok, seen, milliseconds, ...(facts === undefined ? {} : { facts }) })
    }
    try {
      const { seen, facts } = await play(scene)
      finish(true, seen, facts)
    } catch (error) {
      const { code, message, detail } = error as {
        code?: string
        message: string
        detail?: unknown
      }
      finish(false, [
        `${code === undefined ? '' : `${code}: `}${message}`,
        JSON.stringify(detail ?? {}),
      ])
      if (essential) throw new StoryEnded(title)
    }
  }

  #tell(result: StepResult): void {
    this.results.push(result)
    const { json, print } = this.#context
    if (json) return print(JSON.stringify(result))
    const mark = result.ok ? this.#style('32', '✓') : this.#style('31', '✗')
    const seconds = (result.milliseconds / 1000).toFixed(1)
    print(`${mark} ${result.title} ${this.#style('2', `(${seconds} s)`)}`)
    for (const line of result.seen)
      for (const part of wrap(shorten(line))) print(`    ${part}`.trimEnd())
  }

  #style(code: string, text: string): string {
    return this.#context.color ? `\u001b[${code}m${text}\u001b[0m` : text
  }
}
