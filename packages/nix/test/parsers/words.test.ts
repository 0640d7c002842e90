import { testParsers } from './laws.ts'
import { WORDS } from './words.ts'

testParsers(WORDS)
