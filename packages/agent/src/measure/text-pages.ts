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
/** 8 MiB of arguments or environment. */
const MAX_RANGE_PAGES = 2048
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

/**
 * Checks that the pages between the addresses are there, in memory or swapped out. A page of one's arguments that
 * is not there was taken away: reading it would wait for whoever fills it in, a userfaultfd or a file system that
 * never answers. The kernel wrote these pages at exec.
 * @throws {AgentError} MEMORY_UNREADABLE, PROCESS_GONE, PROC_UNREADABLE
 */
export function assertResident(pid: number, ranges: readonly (readonly [number, number])[]): void {
  const path = `/proc/${pid}/pagemap`
  asProcError(path, () => {
    const fd = openSync(path, 'r')
    try {
      for (const [from, to] of ranges) {
        if (to <= from) continue
        const page = Math.floor(from / PAGE_BYTES)
        const pages = Math.ceil(to / PAGE_BYTES) - page
        if (pages > MAX_RANGE_PAGES)
          throw new AgentError('MEASUREMENT_LIMIT', `expected at most ${MAX_RANGE_PAGES} pages`)
        const entries = readEntries(fd, page, pages)
        for (let i = 1; i < entries.length; i += 2)
          if (((entries[i] as number) & PRESENT_OR_SWAPPED) === 0)
            throw new AgentError(
              'MEMORY_UNREADABLE',
              `process ${pid} has arguments or environment in memory that is not there`,
            )
      }
    } finally {
      closeSync(fd)
    }
  })
}

function readEntries(fd: number, firstPage: number, pages: number): Uint32Array {
  const entries = new Uint32Array(pages * 2)
  const read = readSync(fd, entries, 0, entries.byteLength, firstPage * ENTRY_BYTES)
  if (read === entries.byteLength) return entries
  throw new AgentError('PROCESS_GONE', 'the address space ended while its pages were looked at')
}

function countModified(fd: number, firstPage: number, pages: number): number {
  const buffer = readEntries(fd, firstPage, pages)
  let modified = 0
  for (let i = 1; i < buffer.length; i += 2) {
    const entry = buffer[i] as number
    if ((entry & PRESENT_OR_SWAPPED) !== 0 && (entry & OF_FILE) === 0) modified += 1
  }
  return modified
}
