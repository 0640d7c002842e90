import { testParsers } from './laws.ts'
import { LINES } from './lines.ts'

testParsers(LINES)
