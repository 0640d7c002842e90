// Processes of any shape, for the measurer to look at: perl maps and forks as it is told, and says when it is done.
import { arch } from 'node:os'

/** Kinds of mappings: of no file, of a store file to read, and of that file to execute. */
export const MAPPINGS = ['anonymous', 'r--', 'r-x'] as const

// <sys/mman.h>; <asm/unistd.h>. Neighbours are never merged: those of no file differ in what is allowed, and those
// of a file all show its first page.
const MMAP = arch() === 'arm64' ? 222 : 9
const SCRIPT = `
my ($kind, $mappings, $processes) = @ARGV;
open my $file, '<', $^X or die;
for (1 .. $mappings) {
  my $at = $kind eq 'anonymous'
    ? syscall(${MMAP}, 0, 4096, $_ % 2, 0x22, -1, 0)
    : syscall(${MMAP}, 0, 4096, $kind eq 'r-x' ? 5 : 1, 2, fileno $file, 0);
  die "mmap: $!" if $at == -1;
}
close $file;
for (2 .. $processes) { defined(my $child = fork) or die; do { sleep; exit } unless $child }
$| = 1;
print "ready\\n";
sleep;
`

/** A program with so many mappings more than perl has, in so many processes. */
export function shaped(
  perl: string,
  { kind = 'anonymous', mappings = 0, processes = 1 }: Shape,
): [string, ...string[]] {
  return [perl, '-e', SCRIPT, kind, `${mappings}`, `${processes}`]
}

export interface Shape {
  readonly kind?: (typeof MAPPINGS)[number]
  readonly mappings?: number
  readonly processes?: number
}
