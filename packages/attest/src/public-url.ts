// Attestations are published, and URLs in settings and lock files may hold a user name and password.
const USER_INFO = /^([A-Za-z][A-Za-z0-9+.-]*:\/\/)[^/?#]*@/

/** Returns a URL without the user name and password before its host. */
export function publicUrl(url: string): string {
  return url.replace(USER_INFO, '$1')
}
