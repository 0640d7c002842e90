// Names in closures were chosen by whoever built them. On a terminal they must not move the cursor, hide
// text or turn it round.

/** `text` with everything but visible characters and blanks as `\u{…}`. */
export function printable(text: string): string {
  return text.replace(
    /[^\P{C} ]|[\p{Zl}\p{Zp}]/gu,
    (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`,
  )
}
