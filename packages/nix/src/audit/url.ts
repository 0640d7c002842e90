// URLs in derivations, as fetchers write them: also `mirror://`, `git+https://` and `git@host:path`.

const CREDENTIAL_PARAMETER =
  /([?&](?:access_token|api_key|apikey|password|private_token|secret|sig|signature|token|x-amz-signature)=)(?![$<{%])[^&#\s"'<>\\]{16,2000}/gi
const USER_INFO = /:\/\/[^\s/@"'<>\\]{1,600}@/g
// A user without password, such as "ssh://git@host", is no credential; nor is what documentation writes.
const PASSWORD =
  /:\/\/[^\s/:@"'<>\\$]{0,250}:(?!(?:pass|password|passwd|pwd|secret|token|x-oauth-basic)@|[$<{%*…])[^\s/@"'<>\\]{1,250}@/
const URL_CHARACTERS = 300

/** The first URL with a password, or with a parameter that grants access, without these; or `undefined`. */
export function findCredentials(text: string): string | undefined {
  const found = [text.search(PASSWORD), text.search(CREDENTIAL_PARAMETER)].filter((at) => at >= 0)
  if (found.length === 0) return undefined
  const at = Math.min(...found)
  const before = text.slice(Math.max(0, at - URL_CHARACTERS), at)
  const start = at - (/[^\s"'<>\\]*$/.exec(before)?.[0].length ?? 0)
  // Long enough that whatever is a credential here is one there.
  const redacted = redactUrls(text.slice(start, at + 3000))
  return /^[^\s"'<>\\]*/.exec(redacted)?.[0].slice(0, URL_CHARACTERS)
}

/** Text in which no URL shows a user, a password or a parameter that grants access. */
export function redactUrls(text: string): string {
  return text.replaceAll(USER_INFO, '://…@').replaceAll(CREDENTIAL_PARAMETER, '$1…')
}

/** Where a URL leads: its host, `mirror://NAME`, or `undefined` where it has none. */
export function hostOf(url: string): string | undefined {
  const scp = /^[\w.-]{1,64}@([\w.-]{1,253}):(?!\/\/)/.exec(url)
  if (scp !== null) return scp[1]?.toLowerCase()
  const mirror = /^mirror:\/\/([\w.-]{1,64})\//.exec(url)
  if (mirror !== null) return `mirror://${mirror[1]}`
  try {
    const { host } = new URL(url.replace(/^[a-z]{1,10}\+/, ''))
    return host === '' ? undefined : host
  } catch {
    return undefined // no URL
  }
}

/** Whether a URL is fetched without transport security. */
export function isInsecure(url: string): boolean {
  return /^(?:[a-z]{1,10}\+)?(?:http|ftp|git|svn|cvs|rsync):\/\//i.test(url)
}
