import { testParsers } from './laws.ts'
import { ARCHIVES } from './archives.ts'

testParsers(ARCHIVES)
