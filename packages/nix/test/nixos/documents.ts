// boot.json as NixOS writes it.
import { parseStorePath } from '@bagcheck/nix'
import type { StorePath } from '@bagcheck/nix'

/** The toplevel of a system with a name of one nix32 character. */
export function systemPath(letter: string): StorePath {
  return parseStorePath(`/nix/store/${letter.repeat(32)}-nixos-system-host-26.05`)
}

/** The closed part of a document, with members changed. */
export function v1(letter: string, members: object = {}): object {
  return {
    init: `${systemPath(letter)}/init`,
    initrd: `/nix/store/${'1'.repeat(32)}-initrd-linux-6.12/initrd`,
    kernel: `/nix/store/${'2'.repeat(32)}-linux-6.12/bzImage`,
    kernelParams: ['loglevel=4', 'dyndbg="file x +p"'],
    label: 'NixOS 26.05 (Linux 6.12)',
    system: 'x86_64-linux',
    toplevel: systemPath(letter),
    ...members,
  }
}

/** A whole document. */
export function document(letter: string, members: object = {}, rest: object = {}): object {
  return {
    'org.nixos.bootspec.v1': v1(letter, members),
    'org.nixos.specialisation.v1': {},
    ...rest,
  }
}
