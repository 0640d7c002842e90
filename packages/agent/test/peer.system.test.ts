import { spawn, type ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { Callers } from '../src/front/callers.ts'
import { assertInstance, readInstance } from '../src/measure/instance.ts'
import type { ProcessInstance } from '../src/measure/messages.ts'
import { closePidfd, endedProcesses, identifyPeer } from '../src/peer.ts'
import { inPrivateRoot } from './fixture/private-root.ts'
import { until } from './fixture/unit.ts'

const measurer = {
  instance: async (pid: number) => readInstance(pid),
  check: async (instance: ProcessInstance) => assertInstance(instance),
}

// Connects, says hello, waits for a line on stdin, then does what its argument says.
const CLIENT = `use IO::Socket::UNIX; $^F = 255;
  my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die; $s->autoflush(1); $| = 1;
  print $s "hello\\n"; <STDIN>;
  if ($ARGV[1] eq 'exec') { exec '/usr/bin/perl', '-e', 'open(my $s, ">&=", $ARGV[0]); syswrite($s, "again\\n"); sleep 1000', fileno($s) }
  if ($ARGV[1] eq 'fork') { if (fork) { sleep 1000 } else { print $s "child\\n"; sleep 1000 } }
  if ($ARGV[1] eq 'leave') { exit if fork; require POSIX; POSIX::setsid(); print $s "orphan\\n"; <$s>; exit }
  if ($ARGV[1] eq 'orphan') { exit if fork; sleep 1; print $s "orphan\\n"; sleep 1000 }
  print $s "again\\n"; sleep 1000`

// Forks until a child has the pid that it was told. What the kernel gave last can be set where it was built for
// checkpoints; elsewhere all pids have to come round.
const REUSE = `use POSIX (); $| = 1; my ($wanted, $uid) = @ARGV;
  for (;;) {
    if (open my $last, '>', '/proc/sys/kernel/ns_last_pid') { print $last $wanted - 1; close $last }
    my $pid = fork // next;
    if ($pid == 0) { POSIX::_exit(0) if $$ != $wanted; $> = $uid; print "reused\\n"; sleep 1000; POSIX::_exit(0) }
    last if $pid == $wanted;
    waitpid $pid, 0;
  }
  sleep 1000`

describe.runIf(inPrivateRoot()).each([
  { source: 'SO_PEERPIDFD', fallback: false },
  { source: 'pidfd_open', fallback: true },
] as const)('a caller, pinned by $source', ({ source, fallback }) => {
  let directory: string
  let server: Server
  let children: ChildProcess[] = []

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-peer-'))
    server = createServer()
    await new Promise<void>((resolve) => server.listen(join(directory, 'sock'), resolve))
  })
  afterEach(() => {
    for (const { pid } of children) {
      try {
        process.kill(-(pid as number), 'SIGKILL')
      } catch {
        // the whole group has ended
      }
    }
    children = []
  })
  afterAll(async () => {
    await new Promise((resolve) => server.close(resolve))
    rmSync(directory, { recursive: true })
  })

  async function connect(then: string): Promise<{ socket: Socket; child: ChildProcess }> {
    const connected = new Promise<Socket>((resolve) => server.once('connection', resolve))
    const child = spawn('/usr/bin/perl', ['-e', CLIENT, join(directory, 'sock'), then], {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true, // one group with what it forks
    })
    children.push(child)
    return { socket: await connected, child }
  }
  const line = (socket: Socket): Promise<string> =>
    new Promise((resolve) => socket.once('data', (data) => resolve(data.toString().trim())))

  test('is the process that connected, until it ends', async () => {
    const { socket, child } = await connect('stay')
    const peer = identifyPeer(socket, { fallback })
    expect(peer).toMatchObject({ pid: child.pid, uid: 0, gid: 0, source })
    expect(endedProcesses([peer.pidfd])).toEqual([])
    child.kill('SIGKILL')
    await until(() => endedProcesses([peer.pidfd]).length === 1)
    closePidfd(peer.pidfd)
    socket.destroy()
  })

  test('is the same at every look while it lives', async () => {
    const { socket, child } = await connect('stay')
    const callers = new Callers(measurer, { fallback })
    callers.admit(socket)
    expect(await line(socket)).toBe('hello')
    child.stdin!.write('\n')
    expect(await line(socket)).toBe('again')
    expect((await callers.check(socket)).instance.pid).toBe(child.pid)
    socket.destroy()
  })

  test('that executes another program on the open connection is not the caller any more', async () => {
    const { socket, child } = await connect('exec')
    const callers = new Callers(measurer, { fallback })
    callers.admit(socket)
    expect(await line(socket)).toBe('hello')
    const before = (await callers.check(socket)).peer
    child.stdin!.write('\n')
    expect(await line(socket)).toBe('again')
    // The same process, the same program even: start time, ids and pidfd say nothing.
    expect(endedProcesses([before.pidfd])).toEqual([])
    await expect(callers.check(socket)).rejects.toMatchObject({ code: 'PROCESS_MOVED' })
    socket.destroy()
  })

  test('that hands its connection on is still the one who is judged', async () => {
    const { socket, child } = await connect('fork')
    const callers = new Callers(measurer, { fallback })
    callers.admit(socket)
    expect(await line(socket)).toBe('hello')
    child.stdin!.write('\n')
    expect(await line(socket)).toBe('child')
    expect((await callers.check(socket)).instance.pid).toBe(child.pid)
    socket.destroy()
  })

  test('that ended leaves nothing to whoever inherited the connection', async () => {
    const { socket, child } = await connect('orphan')
    const callers = new Callers(measurer, { fallback })
    callers.admit(socket)
    expect(await line(socket)).toBe('hello')
    child.stdin!.write('\n')
    expect(await line(socket)).toBe('orphan')
    await expect(callers.check(socket)).rejects.toMatchObject({ code: 'PROCESS_GONE' })
    socket.destroy()
  })

  test('whose pid another process has now is not taken for that one, whoever inherited the connection', async () => {
    const { socket, child } = await connect('leave')
    const callers = new Callers(measurer, { fallback })
    callers.admit(socket)
    expect(await line(socket)).toBe('hello')
    const before = (await callers.check(socket)).instance
    await end(child, socket)
    await reuse(child.pid!)
    expect(isSameProgram(readInstance(child.pid!), before)).toBe(true)
    await expect(callers.check(socket)).rejects.toMatchObject({ code: 'PROCESS_MOVED' })
    socket.destroy()
  })

  test('whose pid another process got before it was accepted is pinned, or at least of the same user', async () => {
    const mine = await connect('leave')
    await end(mine.child, mine.socket)
    await reuse(mine.child.pid!)
    // Without a pidfd from the kernel, a process of the same user is taken for the one that connected.
    if (fallback) {
      const taken = identifyPeer(mine.socket, { fallback })
      expect(taken).toMatchObject({ pid: mine.child.pid, source })
      closePidfd(taken.pidfd)
    } else
      expect(() => identifyPeer(mine.socket)).toThrow(
        expect.objectContaining({ code: 'PEER_UNKNOWN' }),
      )
    mine.socket.destroy()
    const theirs = await connect('leave')
    await end(theirs.child, theirs.socket)
    await reuse(theirs.child.pid!, 65_534)
    expect(() => identifyPeer(theirs.socket, { fallback })).toThrow(
      expect.objectContaining({ code: 'PEER_UNKNOWN' }),
    )
    theirs.socket.destroy()
  })

  /** The process that connected ends, and a child of it, in no group of its own pid, holds the connection. */
  async function end(child: ChildProcess, socket: Socket): Promise<void> {
    const ended = new Promise((resolve) => child.once('exit', resolve))
    const heard = new Promise<void>((resolve) => {
      socket.on('data', (data) => data.toString().includes('orphan') && resolve())
    })
    child.stdin!.write('\n')
    await Promise.all([ended, heard])
  }

  /** Makes a process of user `uid` that has the pid of one that has ended. */
  async function reuse(pid: number, uid = 0): Promise<void> {
    const child = spawn('/usr/bin/perl', ['-e', REUSE, String(pid), String(uid)], {
      stdio: ['ignore', 'pipe', 'inherit'],
      detached: true,
    })
    children.push(child)
    await new Promise((resolve) => child.stdout.once('data', resolve))
    expect(readInstance(pid).pid).toBe(pid)
  }

  const isSameProgram = (a: ProcessInstance, b: ProcessInstance): boolean =>
    a.device === b.device && a.inode === b.inode
})
