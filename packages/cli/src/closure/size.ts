const UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** A number of bytes for people: `0 B`, `1.5 KiB`, `230 MiB`. */
export function formatBytes(bytes: number): string {
  let value = Math.abs(bytes)
  let unit = 0
  // From 1023.5 on, a value would be shown as 1024 of its unit.
  while (value >= 1023.5 && unit < UNITS.length - 1) {
    value /= 1024
    unit++
  }
  const digits = unit === 0 || value >= 99.95 ? 0 : 1
  return `${bytes < 0 ? '-' : ''}${value.toFixed(digits)} ${UNITS[unit]}`
}

/** A difference in bytes, with its sign: `+1.5 KiB`, `-230 MiB`, `±0 B`. */
export function formatBytesDelta(bytes: number): string {
  return `${bytes > 0 ? '+' : bytes === 0 ? '±' : ''}${formatBytes(bytes)}`
}
