// Names of Linux capabilities by bit, from linux/capability.h; an unknown bit has a name nobody allows.
const NAMES =
  'CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE'.split(
    ' ',
  )

/** Names of the capabilities in a set. */
export function capabilityNames(set: bigint): readonly string[] {
  if (set === 0n) return []
  const names: string[] = []
  for (let bit = 0; bit < 64; bit += 1)
    if ((set >> BigInt(bit)) & 1n) names.push(`CAP_${NAMES[bit] ?? `UNKNOWN_${bit}`}`)
  return names
}
