// The smallest audit library that glibc's loader takes (rtld-audit(7)), as bytes, because machines that run
// these tests need have no compiler. It exports `la_version` and agrees to whatever version it is offered.
//
//   0x00000 ELF header, program headers, DT_HASH, symbols, strings, code    mapped readable and executable
//   0x10000 dynamic section                                                mapped writable: the loader relocates it
//
// elf(5), System V ABI.
const PAGE = 0x10000 // of kernels with large pages, too
const [ET_DYN, EM_X86_64, EM_AARCH64] = [3, 62, 183]
const [PT_LOAD, PT_DYNAMIC, PT_GNU_STACK] = [1, 2, 0x6474_e551]
const [EXECUTE, WRITE, READ] = [1, 2, 4]
const [DT_NULL, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT] = [0, 4, 5, 6, 10, 11]
const EHDR_BYTES = 64
const PHDR_BYTES = 56
const SYM_BYTES = 24

/** Returns its argument: `mov eax, edi; ret` and `ret`. */
const code = process.arch === 'arm64' ? [0xc0, 0x03, 0x5f, 0xd6] : [0x89, 0xf8, 0xc3]

/** The library's bytes, for this machine. */
export function auditLibrary(): Buffer {
  const strings = Buffer.from('\0la_version\0')
  const hashAt = EHDR_BYTES + 4 * PHDR_BYTES
  const hash = u32(1, 2, 1, 0, 0) // one bucket, two symbols; the bucket's chain is symbol 1 and no other
  const symbolsAt = align(hashAt + hash.length)
  const stringsAt = symbolsAt + 2 * SYM_BYTES
  const codeAt = align(stringsAt + strings.length)
  // st_name, st_info (global function) with st_other and st_shndx (any section that is one), st_value, st_size
  const symbol = Buffer.concat([u32(1, 0x0001_0012), u64(codeAt, code.length)])

  const dynamic = u64(
    ...[DT_HASH, hashAt, DT_SYMTAB, symbolsAt, DT_SYMENT, SYM_BYTES],
    ...[DT_STRTAB, stringsAt, DT_STRSZ, strings.length, DT_NULL, 0],
  )
  const codeEnd = codeAt + code.length
  const library = Buffer.alloc(PAGE + dynamic.length)
  const put = (at: number, ...parts: Buffer[]): number => Buffer.concat(parts).copy(library, at)
  put(0, header(), segment(PT_LOAD, READ | EXECUTE, 0, codeEnd))
  const rest = [PT_LOAD, PT_DYNAMIC].map((type) =>
    segment(type, READ | WRITE, PAGE, dynamic.length),
  )
  put(EHDR_BYTES + PHDR_BYTES, ...rest, segment(PT_GNU_STACK, READ | WRITE, 0, 0))
  put(hashAt, hash)
  put(symbolsAt + SYM_BYTES, symbol) // the first symbol is none
  put(stringsAt, strings)
  put(codeAt, Buffer.from(code))
  put(PAGE, dynamic)
  return library
}

function header(): Buffer {
  const machine = process.arch === 'arm64' ? EM_AARCH64 : EM_X86_64
  const identity = Buffer.from('\x7fELF\x02\x01\x01'.padEnd(16, '\0'), 'latin1') // 64 bits, little-endian
  return Buffer.concat([
    ...[identity, u16(ET_DYN, machine), u32(1), u64(0, EHDR_BYTES, 0), u32(0)],
    u16(EHDR_BYTES, PHDR_BYTES, 4, 0, 0, 0),
  ])
}

/** A program header; file and memory are laid out alike. */
function segment(type: number, flags: number, at: number, size: number): Buffer {
  return Buffer.concat([u32(type, flags), u64(at, at, at, size, size, PAGE)])
}

const align = (offset: number): number => Math.ceil(offset / 8) * 8
const u16 = (...values: number[]): Buffer => Buffer.from(new Uint16Array(values).buffer)
const u32 = (...values: number[]): Buffer => Buffer.from(new Uint32Array(values).buffer)
const u64 = (...values: number[]): Buffer =>
  Buffer.from(new BigUint64Array(values.map(BigInt)).buffer)
