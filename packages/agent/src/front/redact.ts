// Arguments and messages as an operator may see them: what looks like a secret is not shown. Evidence goes to the
// broker unchanged; this is for screens, tickets and chat windows, where explanations end up.
//
// In doubt it is hidden. Store paths, digests in them and plain words stay readable, or nothing would be explained.

const HIDDEN = '[redacted]'
const SECRET_NAME =
  /(pass(word|wd|phrase)?|secret|token|api[-_]?key|private[-_]?key|credential|auth|cookie|session|signature|dsn)/i
/** Long and random: letters and digits mixed, no path and no words. */
const RANDOM = /(?<![\w/.+-])(?=[\w+/=-]*\d)(?=[\w+/=-]*[A-Za-z])[\w+=-]{24,}(?![\w/.-])/g
const JWT = /eyJ[\w-]{5,}\.[\w-]+(\.[\w-]*)?/g
const USER_INFO = /(\b[a-z][a-z0-9+.-]*:\/\/)[^\s/@]+@/gi
const PEM = /-----BEGIN [^-]+-----[^]*?(-----END [^-]+-----|$)/g

/** Arguments without what looks like a secret. */
export function redactArguments(args: readonly string[]): string[] {
  return args.map((arg, index) => {
    const before = args[index - 1] ?? ''
    // `--password x`: the value stands by itself.
    if (/^--?[\w-]+$/.test(before) && SECRET_NAME.test(before) && !arg.startsWith('-'))
      return HIDDEN
    const [, name, value] = /^([^=\s]{1,128})=([^]*)$/.exec(arg) ?? []
    if (name !== undefined && value !== '' && SECRET_NAME.test(name)) return `${name}=${HIDDEN}`
    return redactText(arg)
  })
}

/** Text without what looks like a secret. */
export function redactText(text: string): string {
  return text
    .replaceAll(PEM, HIDDEN)
    .replaceAll(JWT, HIDDEN)
    .replaceAll(USER_INFO, `$1${HIDDEN}@`)
    .replaceAll(RANDOM, (match) => (/^[0-9a-f]{64}$|^[0-9a-f-]{36}$/.test(match) ? match : HIDDEN))
}
