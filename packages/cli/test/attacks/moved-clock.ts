// Imported by a program before its first line: its wall clock is then off by the milliseconds that a file says, so
// that clocks jump for one program and not for the machine. The file is named in the query of our own URL.
import { readFileSync } from 'node:fs'

const file = decodeURIComponent(new URL(import.meta.url).search.slice(1))
const kernels = Date.now
Date.now = () => kernels() + Number(readFileSync(file, 'utf8'))
