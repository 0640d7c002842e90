// Was text changed in memory? A page of a private file mapping that was written to (/proc/PID/mem,
// ptrace, mprotect, a breakpoint) becomes anonymous memory: in `pagemap` it is present or swapped (bits
// 63, 62) but no longer of a file (bit 61). smaps would say so too, as Anonymous, but only for the whole
// address space at a price that grows with the heap; its Private_Dirty is no proof, because the pages
// of a file that was just written to disk are dirty as well. admin-guide/mm/pagemap.rst.
import { closeSync, openSync, readSync } from 'node:fs'
import { AgentError } from '../error.ts'
import { regionBytes, type ExecutableRegion } from './maps.ts'
import { asProcError } from './proc-file.ts'

const PAGE_BYTES = 4096
const ENTRY_BYTES = 8
const CHUNK_PAGES = 32 * 1024
/** 4 GiB of text in one process. */
const MAX_PAGES = 1024 * 1024
// In the upper half of the 64-bit entry.
const PRESENT_OR_SWAPPED = 0xc0000000
const OF_FILE = 0x20000000

/**
 * Bytes in `regions` that are no longer what their file holds.
 * @throws {AgentError} PROCESS_GONE, PROC_UNREADABLE, MEASUREMENT_LIMIT
 */
export function modifiedTextBytes(pid: number, regions: readonly ExecutableRegion[]): number {
  const path = `/proc/${pid}/pagemap`
  return asProcError(path, () => {
    const fd = openSync(path, 'r')
    try {
      let modified = 0
      let left = MAX_PAGES
      for (const region of regions) {
        let page = Number(BigInt(`0x${region.start}`) / BigInt(PAGE_BYTES))
        let pages = regionBytes(region) / PAGE_BYTES
        left -= pages
        if (left < 0) throw new AgentError('MEASUREMENT_LIMIT', 'expected at most 4 GiB of text')
        while (pages > 0) {
          const count = Math.min(pages, CHUNK_PAGES)
          modified += countModified(fd, page, count)
          page += count
          pages -= count
        }
      }
      return modified * PAGE_BYTES
    } finally {
      closeSync(fd)
    }
  })
}

function countModified(fd: number, firstPage: number, pages: number): number {
  const buffer = new Uint32Array(pages * 2)
  const read = readSync(fd, buffer, 0, buffer.byteLength, firstPage * ENTRY_BYTES)
  if (read !== buffer.byteLength)
    throw new AgentError('PROCESS_GONE', 'the address space ended while its pages were counted')
  let modified = 0
  for (let i = 1; i < buffer.length; i += 2) {
    const entry = buffer[i] as number
    if ((entry & PRESENT_OR_SWAPPED) !== 0 && (entry & OF_FILE) === 0) modified += 1
  }
  return modified
}
