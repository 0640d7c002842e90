// Names of containers as a policy gives them. Part by part, without going back: no pattern makes us search for ever.

/** True if `text` is `pattern`, in which `*` stands for anything. */
export function matchesGlob(text: string, pattern: string): boolean {
  const [first = '', ...others] = pattern.split('*')
  const last = others.pop()
  if (last === undefined) return text === pattern
  if (!text.startsWith(first)) return false
  let at = first.length
  for (const part of others) {
    const found = text.indexOf(part, at)
    if (found < 0) return false
    at = found + part.length
  }
  return text.length - last.length >= at && text.endsWith(last)
}
