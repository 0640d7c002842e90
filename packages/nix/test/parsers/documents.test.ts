import { testParsers } from './laws.ts'
import { DOCUMENTS } from './documents.ts'

testParsers(DOCUMENTS)
