import type { ObservationRequest } from '@bagcheck/api'
import type { Handler } from '../app.ts'
import { observe as judge } from '../observation.ts'
import { json } from './answer.ts'

export const observe: Handler = async ({ broker, body }) =>
  json(await judge(broker, (body as ObservationRequest).observation))
