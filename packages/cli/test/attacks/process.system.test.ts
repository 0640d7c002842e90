import { execFileSync } from 'node:child_process'
import {
  closeSync,
  copyFileSync,
  cpSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { findSpareLibrary } from '../../src/demo/build.ts'
import { auditLibrary } from './audit-library.ts'
import { Arena, type Answer, type Start, type Subject } from './arena.ts'
import { inArena } from './in-arena.ts'
import { Program } from './program.ts'
import { perlRuntime, type Service } from './services.ts'

const UID = 61_070
const BUSYBOX = '/bin/busybox'

/** One attack on the approved service. */
interface Attack {
  readonly name: string
  /** Started with something wrong from the beginning; then there is no moment at which it is right. */
  readonly start?: (arena: Arena, service: Service) => Promise<Start> | Start
  /** Done by the service before it first asks. */
  readonly before?: (subject: Subject) => Promise<unknown>
  /** Done to the service while it runs, after it was given a token. */
  readonly stage?: (subject: Subject, arena: Arena) => Promise<unknown> | unknown
  /** Puts right what is not the service's alone. */
  readonly restore?: (service: Service, arena: Arena) => unknown
  readonly code: string
  /** Something that the reason names. */
  readonly names?: (arena: Arena) => string
}

const pricesOf = ({ root }: Service): string => join(root, 'share/prices.json')
function replacePrices(service: Service): void {
  renameSync(pricesOf(service), `${pricesOf(service)}.kept`)
  writeFileSync(pricesOf(service), '[]')
}
function restorePrices(service: Service): void {
  renameSync(`${pricesOf(service)}.kept`, pricesOf(service))
}

const attacks: readonly Attack[] = [
  {
    name: 'it starts a program in a memfd',
    stage: (subject) => subject.tell(`memfd-spawn ${BUSYBOX} sleep 1000`),
    code: 'FILE_UNLINKED',
    names: () => '/memfd:program',
  },
  {
    name: 'it maps a memfd executable',
    stage: (subject) => subject.tell('memfd-map'),
    code: 'MEMFD_EXECUTABLE',
    names: () => 'payload',
  },
  {
    name: 'it starts a program that is deleted then',
    stage: async (subject, arena) => {
      const program = arena.publish(BUSYBOX, 'deleted')
      await subject.tell(`spawn ${program} sleep 1000`)
      rmSync(program)
    },
    code: 'FILE_UNLINKED',
  },
  {
    name: 'it starts a program on a tmpfs',
    stage: async (subject, arena) => {
      arena.mountTmpfs('tmpfs')
      await subject.tell(`spawn ${arena.publish(BUSYBOX, 'tmpfs/program')} sleep 1000`)
    },
    code: 'FILE_NOT_IN_CLOSURE',
    names: (arena) => join(arena.publicDirectory, 'tmpfs/program'),
  },
  {
    name: 'a child of it runs a foreign program',
    stage: (subject, arena) =>
      subject.tell(`spawn ${arena.publish(BUSYBOX, 'foreign')} sleep 1000`),
    code: 'FILE_NOT_IN_CLOSURE',
    names: (arena) => join(arena.publicDirectory, 'foreign'),
  },
  {
    name: 'a child of it runs the approved interpreter on standard input',
    stage: (subject) => subject.tell(`spawn ${subject.service.executable} -e sleep(1000)`),
    code: 'INTERPRETER_WITHOUT_CONTRACT',
  },
  {
    name: 'it loads a library from outside',
    stage: async (subject, arena) =>
      subject.tell(`load ${arena.publish(await findSpareLibrary(), 'libloaded.so')}`),
    code: 'FILE_NOT_IN_CLOSURE',
    names: (arena) => join(arena.publicDirectory, 'libloaded.so'),
  },
  {
    name: 'a library was preloaded and its environment wiped afterwards',
    start: async (arena) => ({
      environment: { LD_PRELOAD: arena.publish(await findSpareLibrary(), 'libpreloaded.so') },
    }),
    before: (subject) => subject.tell('wipe-environment'),
    code: 'FILE_NOT_IN_CLOSURE',
    names: (arena) => join(arena.publicDirectory, 'libpreloaded.so'),
  },
  {
    name: 'an audit library was loaded and its environment wiped afterwards',
    start: (arena) => {
      const library = join(arena.publicDirectory, 'libaudit.so')
      writeFileSync(library, auditLibrary(), { mode: 0o755 })
      return { environment: { LD_AUDIT: library } }
    },
    before: (subject) => subject.tell('wipe-environment'),
    code: 'FILE_NOT_IN_CLOSURE',
    names: (arena) => join(arena.publicDirectory, 'libaudit.so'),
  },
  {
    name: 'its interpreter is given arguments by a variable',
    start: () => ({ environment: { PERL5OPT: '-w' } }),
    code: 'ARGUMENTS_MISMATCH',
    names: () => 'PERL5OPT',
  },
  {
    name: 'it is given arguments by the variable that Node reads',
    start: () => ({ environment: { NODE_OPTIONS: '--import=/tmp/foreign.mjs' } }),
    code: 'ARGUMENTS_MISMATCH',
    names: () => 'NODE_OPTIONS',
  },
  {
    name: 'its interpreter may take modules from elsewhere',
    start: (arena) => ({ environment: { PERL5LIB: arena.publicDirectory } }),
    code: 'SEARCH_PATH_FOREIGN',
    names: () => 'PERL5LIB',
  },
  {
    name: 'its interpreter may take modules from elsewhere, and from its closure',
    start: (arena, service) => ({
      environment: { PYTHONPATH: `${dirname(service.scriptPath)}:${arena.publicDirectory}` },
    }),
    code: 'SEARCH_PATH_FOREIGN',
    names: () => 'PYTHONPATH',
  },
  {
    name: 'it was started on a foreign script',
    start: (arena, service) => ({ script: arena.publish(service.scriptPath, 'foreign.pl') }),
    code: 'SCRIPT_NOT_IN_CLOSURE',
    names: (arena) => join(arena.publicDirectory, 'foreign.pl'),
  },
  {
    name: 'it was started on a copy of the interpreter',
    start: (arena, service) => {
      mkdirSync(join(arena.publicDirectory, 'bin'))
      symlinkSync(
        join(dirname(dirname(service.executable)), 'lib'),
        join(arena.publicDirectory, 'lib'),
      )
      return { program: arena.publish(service.executable, 'bin/perl') }
    },
    code: 'FILE_NOT_STORE_FILE',
  },
  {
    name: 'another user started it',
    start: () => ({ uid: UID + 1 }),
    code: 'UID_NOT_ALLOWED',
  },
  {
    name: 'it executes the same program anew',
    stage: (subject) =>
      subject.tell(`exec ${subject.service.executable} ${subject.service.scriptPath}`),
    code: 'CONTRACT_BROKEN',
  },
  {
    name: 'it executes its interpreter on a foreign script',
    stage: (subject, arena) =>
      subject.tell(
        `exec ${subject.service.executable} ${arena.publish(subject.service.scriptPath, 'other.pl')}`,
      ),
    code: 'CONTRACT_BROKEN',
  },
  {
    name: 'it maps anonymous memory writable and executable',
    stage: (subject) => subject.tell('anonymous'),
    code: 'JIT_NOT_ALLOWED',
  },
  {
    name: 'it writes code and makes it executable then',
    stage: (subject) => subject.tell('write-execute'),
    code: 'JIT_NOT_ALLOWED',
  },
  {
    name: 'it can serve page faults of its own memory',
    stage: (subject) => subject.tell('userfaultfd'),
    code: 'DESCRIPTOR_NOT_ALLOWED',
    names: () => 'userfaultfd',
  },
  {
    name: 'it keeps a file without a name',
    stage: (subject) => subject.tell('memfd-open'),
    code: 'DESCRIPTOR_NOT_ALLOWED',
    names: () => 'memfd:payload',
  },
  {
    name: 'a debugger writes to its code',
    stage: (subject) => {
      const maps = readFileSync(`/proc/${subject.pid}/maps`, 'utf8')
      const text = maps.split('\n').find((line) => / r-xp .*\/bin\/perl$/.test(line)) ?? ''
      const [range = '', , offset = ''] = text.split(' ')
      const start = range.slice(0, range.indexOf('-'))
      const memory = openSync(`/proc/${subject.pid}/mem`, 'r+')
      const bytes = readFileSync(subject.service.executable)
      writeSync(memory, bytes, Number.parseInt(offset, 16), 16, Number.parseInt(start, 16))
      closeSync(memory)
    },
    code: 'TEXT_MODIFIED',
  },
  {
    name: 'root enters its unit with a foreign program',
    stage: (subject) => subject.intrude(`exec ${BUSYBOX} sleep 1000`),
    code: 'FILE_NOT_IN_CLOSURE',
    names: () => BUSYBOX,
  },
  {
    name: 'a process of its unit has another file over the interpreter, in a mount namespace of its own',
    stage: (subject, arena) => {
      const evil = arena.publish(subject.service.executable, 'evil')
      writeFileSync(evil, '\0', { flag: 'a' })
      const as = `setpriv --reuid ${UID} --regid ${UID} --clear-groups --no-new-privs --inh-caps=-all`
      return subject.intrude(
        `mount --bind ${evil} ${subject.service.executable} && exec ${as} ${subject.service.executable} -e 'sleep 1000'`,
      )
    },
    code: 'MOUNT_BELOW_STORE',
  },
  {
    name: 'a process of its unit has an overlay over the store',
    stage: (subject, arena) => {
      const layers = join(arena.publicDirectory, 'layers')
      mkdirSync(layers)
      return subject.intrude(
        `mount -t tmpfs none ${layers} && mkdir ${layers}/upper ${layers}/work && ` +
          `mount -t overlay -o lowerdir=/nix/store,upperdir=${layers}/upper,workdir=${layers}/work ` +
          `none /nix/store && exec ${BUSYBOX} sleep 1000`,
      )
    },
    code: 'STORE_MOUNT',
  },
  {
    name: 'a process of its unit has another root directory',
    stage: (subject, arena) => {
      const root = join(arena.publicDirectory, 'root')
      mkdirSync(root)
      arena.publish(BUSYBOX, 'root/busybox')
      return subject.intrude(`exec chroot ${root} /busybox sleep 1000`)
    },
    code: 'ROOT_DIRECTORY',
  },
  {
    name: 'something is mounted over a file of its closure while it runs',
    stage: (subject, arena) => {
      const evil = arena.publish(BUSYBOX, 'mounted')
      execFileSync('mount', ['--bind', evil, subject.service.scriptPath])
    },
    restore: (service) => execFileSync('umount', [service.scriptPath]),
    code: 'MOUNT_BELOW_STORE',
  },
  {
    name: 'a file of its closure is replaced while it runs',
    stage: (subject) => replacePrices(subject.service),
    restore: restorePrices,
    code: 'CONTENT_MISMATCH',
    names: () => 'share/prices.json',
  },
  {
    name: 'its interpreter is replaced by the same bytes while it runs',
    stage: (subject) => {
      renameSync(subject.service.executable, `${subject.service.executable}.kept`)
      copyFileSync(`${subject.service.executable}.kept`, subject.service.executable)
    },
    restore: (service) => renameSync(`${service.executable}.kept`, service.executable),
    code: 'FILE_NOT_STORE_FILE',
  },
  {
    name: 'its store path becomes a link to a copy',
    stage: (subject, arena) => {
      const copy = join(arena.publicDirectory, 'copy')
      cpSync(subject.service.root, copy, { recursive: true, verbatimSymlinks: true })
      renameSync(subject.service.root, `${subject.service.root}.kept`)
      symlinkSync(copy, subject.service.root)
    },
    restore: (service) => {
      rmSync(service.root)
      renameSync(`${service.root}.kept`, service.root)
    },
    code: 'CONTENT_MISMATCH',
  },
  {
    name: 'a file of its closure is replaced while the agent’s clock steps back',
    stage: async (subject, arena) => {
      arena.moveAgentClock(4)
      expect(await subject.ask()).toEqual({ token: true })
      replacePrices(subject.service)
      arena.moveAgentClock(0)
    },
    restore: restorePrices,
    code: 'CONTENT_MISMATCH',
    names: () => 'share/prices.json',
  },
  {
    name: 'the agent’s clock is an hour behind',
    stage: (_subject, arena) => arena.moveAgentClock(-3600),
    restore: (_service, arena) => arena.moveAgentClock(0),
    code: 'EVIDENCE_TIME',
  },
  {
    name: 'the agent’s clock is an hour ahead',
    stage: (_subject, arena) => arena.moveAgentClock(3600),
    restore: (_service, arena) => arena.moveAgentClock(0),
    code: 'EVIDENCE_TIME',
  },
  {
    name: 'it is attacked while the agent is stopped',
    stage: async (subject, arena) => {
      process.kill(arena.agent.child.pid!, 'SIGSTOP')
      await subject.tell(`load ${arena.publish(await findSpareLibrary(), 'libunseen.so')}`)
      process.kill(arena.agent.child.pid!, 'SIGCONT')
    },
    code: 'FILE_NOT_IN_CLOSURE',
    names: (arena) => join(arena.publicDirectory, 'libunseen.so'),
  },
]

type Undeserved = [what: string, doing: (subject: Subject, arena: Arena) => unknown]
function foreignCode(arena: Arena): string {
  const file = join(arena.publicDirectory, 'code.pl')
  writeFileSync(file, 'our $foreign = 1;\n')
  return file
}

describe.runIf(inArena())('an approved service', () => {
  let arena: Arena
  let service: Service
  beforeAll(async () => {
    const script = join(import.meta.dirname, 'subject.pl')
    const runtime = await perlRuntime()
    arena = await Arena.open(() => [{ name: 'subject', uid: UID, script, options: [], runtime }])
    service = arena.services[0]!
  })
  afterAll(() => arena[Symbol.asyncDispose]())
  afterEach(() => arena.moveAgentClock(0))

  test('gets a token, again and again', async () => {
    await using subject = await arena.start(service)
    for (let round = 0; round < 3; round += 1) expect(await subject.ask()).toEqual({ token: true })
    expect(await subject.tell('fork-ask')).toEqual({ token: true })
  })

  test.each<[what: string, doing: (subject: Subject, arena: Arena) => Promise<unknown>]>([
    ['it wiped its environment', (subject) => subject.tell('wipe-environment')],
    ['it has a ring for system calls, as Node does', (subject) => subject.tell('io_uring')],
    ['it reads a foreign file', (subject) => subject.tell(`open ${BUSYBOX}`)],
    [
      'it was stopped for a while, and the agent too',
      async ({ pid }, { agent }) => {
        for (const signal of ['SIGSTOP', 'SIGCONT'] as const)
          for (const each of [pid, agent.child.pid!]) process.kill(each, signal)
      },
    ],
    [
      'others have a tmpfs',
      async (_subject, arena) =>
        arena.publish(BUSYBOX, `${basename(arena.mountTmpfs('theirs'))}/x`),
    ],
    [
      'the agent’s clock is a little off',
      async (subject, arena) => {
        arena.moveAgentClock(-10)
        expect(await subject.ask()).toEqual({ token: true })
        arena.moveAgentClock(0)
      },
    ],
  ])('gets a token when %s', async (_what, doing) => {
    await using subject = await arena.start(service)
    await doing(subject, arena)
    expect(await subject.ask()).toEqual({ token: true })
  })

  test('gets a token when its modules come from its closure', async () => {
    const directory = dirname(service.scriptPath)
    const environment = { PERL5LIB: directory, PYTHONPATH: `${directory}:${service.root}/lib` }
    await using subject = await arena.start(service, { environment })
    expect(await subject.ask()).toEqual({ token: true })
  })

  test('gets none on a connection that somebody else made and passed to it', async () => {
    await using subject = await arena.start(service)
    const own = join(arena.publicDirectory, 'giver.sock')
    await using giver = new Program([
      ...['/usr/bin/perl', join(import.meta.dirname, 'pass-connection.pl'), arena.socket, own],
    ])
    await giver.nextOf((line) => line['ready'] === true)
    expect(codesOf((await subject.tell(`ask-on ${own}`)) as Answer)).toContain('UNIT_NONE')
    expect(await subject.ask()).toEqual({ token: true })
  })

  // What tier 0 does not see, said in docs/threat-model.md. If one of these is denied some day, say so there.
  test.each<Undeserved>([
    [
      'it read foreign code and closed the file again',
      (subject, arena) => subject.tell(`evaluate ${foreignCode(arena)}`),
    ],
    [
      'it unloaded a foreign library before it was looked at',
      async (subject, arena) =>
        subject.tell(`load-unload ${arena.publish(await findSpareLibrary(), 'libbrief.so')}`),
    ],
    ['a descriptor is on its way through a socket', (subject) => subject.tell('memfd-in-flight')],
    [
      'a debugger came and went',
      ({ pid }) => {
        const [ptrace, seize] = [process.arch === 'arm64' ? 117 : 101, 0x4206]
        const script = `exit(syscall(${ptrace}, ${seize}, ${pid}, 0, 0) == 0 ? 0 : 1)` // its end lets go
        execFileSync('/usr/bin/perl', ['-e', script])
      },
    ],
  ])('gets a token, undeserved, when %s', async (_what, doing) => {
    await using subject = await arena.start(service)
    await doing(subject, arena)
    expect(await subject.ask()).toEqual({ token: true })
  })

  test.each(attacks)(
    'is denied when $name',
    async ({ start, before, stage, restore, ...expected }) => {
      const { code, names } = expected
      await using subject = await arena.start(service, await start?.(arena, service))
      await before?.(subject)
      if (stage !== undefined) {
        expect(await subject.ask()).toEqual({ token: true })
        await stage(subject, arena)
      }
      const answer = await subject.ask()
      if (restore !== undefined) {
        restore(service, arena)
        expect(await subject.ask()).toEqual({ token: true })
      }
      expect(codesOf(answer)).toContain(code)
      if (names !== undefined)
        expect(answer.reasons?.find((reason) => reason.code === code)?.message).toContain(
          names(arena),
        )
    },
  )
})

function codesOf({ code, reasons }: Answer): string[] {
  return [...(code === undefined ? [] : [code]), ...(reasons ?? []).map((reason) => reason.code)]
}
