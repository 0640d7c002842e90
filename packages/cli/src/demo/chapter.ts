import type { Scene } from './scene.ts'
import type { Told } from './teller.ts'

/** Something that is done and seen. Data, so that the list of steps is what is played. */
export interface Step {
  readonly id: string
  readonly title: string
  /** All later steps stand on it: its failure ends the story. */
  readonly essential?: boolean
  readonly play: (scene: Scene) => Promise<Told>
}

/** Steps under one heading. */
export interface Chapter {
  readonly title: string
  readonly steps: readonly Step[]
}
