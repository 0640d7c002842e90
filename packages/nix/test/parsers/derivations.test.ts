import { testParsers } from './laws.ts'
import { DERIVATIONS } from './derivations.ts'

testParsers(DERIVATIONS)
