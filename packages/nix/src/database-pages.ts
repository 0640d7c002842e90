// The pages of a SQLite file, as far as they say which pages are below them. SQLite trusts that a tree is one: where a page
// stands below another twice it is read for every way that leads to it, and ten levels of forty ways, in a file of
// 10 kB, are never done. It would find that in an integrity check, which in turn goes down as deep as the file says and
// ends the process where that is too deep. So whoever reads a file of unknown origin looks here first.
//
//   page     = [ header of 100 bytes, on page 1 ] type(1) …(2) cells(2) …(3) rightmost(4) offset(2) × cells …
//   type     2 and 5 have pages below them, by the first four bytes of each cell and the rightmost; others have none
//
// https://www.sqlite.org/fileformat.html#b_tree_pages
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'

const FILE_HEADER_BYTES = 100
const INTERIOR_HEADER_BYTES = 12
const INTERIOR_INDEX = 2
const INTERIOR_TABLE = 5

/**
 * Refuses a file in which a page of a tree is reached twice. Every page is looked at once at most.
 *
 * @param findRoots gives the root pages of all trees but the first, which holds them and is looked at before.
 * @throws {Error} saying what is wrong
 */
export function refuseSharedPages(file: string, findRoots: () => Iterable<number>): void {
  const descriptor = openSync(file, 'r')
  try {
    const header = Buffer.alloc(FILE_HEADER_BYTES)
    readSync(descriptor, header, 0, header.length, 0)
    const pageBytes = header.readUInt16BE(16) === 1 ? 65_536 : header.readUInt16BE(16)
    if (pageBytes < 512) throw new Error('it is no database')
    const pages = Math.floor(fstatSync(descriptor).size / pageBytes)
    const seen = new Uint8Array(pages + 1)
    const pending: number[] = []
    const add = (page: number): void => {
      if (!(page >= 1 && page <= pages)) throw new Error(`it has no page ${page}`)
      if (seen[page] === 1) throw new Error(`page ${page} stands in it twice`)
      seen[page] = 1
      pending.push(page)
    }
    const walk = (root: number): void => {
      add(root)
      for (let page = pending.pop(); page !== undefined; page = pending.pop())
        for (const child of readChildren(descriptor, page, pageBytes)) add(child)
    }
    walk(1)
    for (const root of findRoots()) walk(root)
  } finally {
    closeSync(descriptor)
  }
}

function readChildren(descriptor: number, page: number, pageBytes: number): number[] {
  const start = page === 1 ? FILE_HEADER_BYTES : 0
  const head = Buffer.alloc(INTERIOR_HEADER_BYTES)
  readSync(descriptor, head, 0, head.length, (page - 1) * pageBytes + start)
  if (head[0] !== INTERIOR_INDEX && head[0] !== INTERIOR_TABLE) return []
  const content = Buffer.alloc(pageBytes)
  readSync(descriptor, content, 0, pageBytes, (page - 1) * pageBytes)
  const children = [content.readUInt32BE(start + 8)]
  const cells = content.readUInt16BE(start + 3)
  const offsets = start + INTERIOR_HEADER_BYTES
  if (offsets + 2 * cells > pageBytes) throw new Error(`page ${page} has too many cells`)
  for (let cell = 0; cell < cells; cell++) {
    const at = content.readUInt16BE(offsets + 2 * cell)
    if (at + 4 > pageBytes) throw new Error(`page ${page} has a cell outside of it`)
    children.push(content.readUInt32BE(at))
  }
  return children
}
