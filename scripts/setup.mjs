// Makes a fresh clone runnable: npm packages of the lockfile (Node 24 among them) and, on Debian as
// root, the few system packages. Plain JavaScript for the system's own Node (20 or later), `node:`
// imports only, because nothing is installed yet when it runs.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const say = (line) => console.error(`setup: ${line}`)
const stop = (line) => {
  say(line)
  process.exit(3)
}

/** Installs what the lockfile names; the stamp is written last, so an interrupted install is redone. */
function installNodePackages() {
  const stampFile = join(root, 'node_modules/.bagcheck-setup')
  const stamp = createHash('sha256')
    .update(readFileSync(join(root, 'package-lock.json')))
    .update(`${process.platform}-${process.arch}`)
    .digest('hex')
  if (existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp) return
  const npm = process.env.npm_execpath
  if (!npm) stop('start me through npm: `npm run setup`')
  say('installing the npm packages of package-lock.json (once)')
  const { status } = spawnSync(process.execPath, [npm, 'ci'], {
    cwd: root,
    stdio: ['ignore', 2, 2],
  })
  if (status !== 0) stop('`npm ci` failed: the lines above say why')
  linkNode()
  writeFileSync(stampFile, stamp)
}

/** npm 10 leaves out node_modules/.bin/node when two packages offer it; everything would run on the system's Node. */
function linkNode() {
  const link = join(root, 'node_modules/.bin/node')
  const binary = join(root, `node_modules/node-linux-${process.arch}/bin/node`)
  if (existsSync(binary)) {
    rmSync(link, { force: true })
    symlinkSync(`../node-linux-${process.arch}/bin/node`, link)
  }
  const command = existsSync(link) ? link : process.execPath
  const version = spawnSync(command, ['--version'], { encoding: 'utf8' }).stdout?.trim() ?? 'none'
  const [major, minor] = version.slice(1).split('.').map(Number)
  if (major > 24 || (major === 24 && minor >= 15)) return
  stop(`Node 24.15 or later is needed, and ${version} was found; install it and try again`)
}

const onPath = (name) =>
  (process.env.PATH ?? '')
    .split(':')
    .concat('/usr/sbin', '/sbin')
    .some((dir) => existsSync(join(dir, name)))
const postgresServer = () =>
  existsSync('/usr/lib/postgresql') &&
  readdirSync('/usr/lib/postgresql').some((v) =>
    existsSync(`/usr/lib/postgresql/${v}/bin/postgres`),
  )

/** Debian package → is what it brings there already? */
const systemPackages = {
  'nix-bin': () => onPath('nix-daemon') && onPath('nix-store'),
  patchelf: () => onPath('patchelf'),
  'busybox-static': () => existsSync('/bin/busybox') || existsSync('/usr/bin/busybox'),
  postgresql: () => postgresServer() || onPath('postgres'),
}

/** The same for those whose tests are skipped, with a reason, where they are missing. */
const optionalPackages = { runc: () => onPath('runc'), crun: () => onPath('crun') }

/** Installs missing Debian packages, or says which are missing; what needs them says so again. */
function installSystemPackages() {
  const lacking = (packages) => Object.keys(packages).filter((name) => !packages[name]())
  const missing = lacking(systemPackages)
  const optional = lacking(optionalPackages)
  if (missing.length + optional.length === 0) return
  const wanted = [...missing, ...optional].join(' ')
  const debian = existsSync('/etc/debian_version') && onPath('apt-get')
  const reason =
    process.env.BAGCHECK_NO_APT === '1'
      ? 'BAGCHECK_NO_APT=1 is set'
      : !debian
        ? 'this system is not Debian'
        : process.getuid?.() !== 0
          ? 'I am not root'
          : undefined
  if (reason) {
    say(`missing: ${wanted}. ${reason}, so I install nothing. Please install them:`)
    say(
      debian
        ? `  sudo apt-get install --no-install-recommends ${wanted}`
        : '  Nix (nix-daemon, nix-store), patchelf, a static busybox at /bin/busybox, runc, crun, the PostgreSQL server',
    )
    return
  }
  const tryApt = (...args) =>
    spawnSync('apt-get', args, {
      stdio: ['ignore', 'ignore', 'pipe'],
      encoding: 'utf8',
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
    })
  const apt = (...args) => {
    const { status, stderr } = tryApt(...args)
    if (status === 0) return
    process.stderr.write(stderr ?? '')
    stop(`\`apt-get ${args.join(' ')}\` failed: the lines above say why`)
  }
  const install = ['-qq', '-y', '-o', 'Dpkg::Use-Pty=0', '--no-install-recommends', 'install']
  say(`installing the Debian packages ${wanted} (once)`)
  apt('-qq', 'update')
  if (missing.includes('postgresql')) {
    // The tests make their own throw-away clusters; nobody asked for one that runs as a service.
    apt(...install, 'postgresql-common')
    const conf = '/etc/postgresql-common/createcluster.conf'
    const text = existsSync(conf) ? readFileSync(conf, 'utf8') : ''
    if (!/^\s*create_main_cluster\s*=/m.test(text))
      writeFileSync(conf, `${text}\ncreate_main_cluster = false\n`)
  }
  if (missing.length > 0) apt(...install, ...missing)
  for (const name of optional)
    if (tryApt(...install, name).status !== 0)
      say(`${name} could not be installed: tests of its containers will be skipped`)
}

installNodePackages()
installSystemPackages()
