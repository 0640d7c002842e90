// What spiffe.sock does with clients that are broken, greedy, slow, or not who they were.
import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { connect, type ClientHttp2Session, type OutgoingHttpHeaders } from 'node:http2'
import { createConnection, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { frame, frameTypes, openCall, PREFACE } from './fixture/http2-frames.ts'
import { inPrivateRoot } from './fixture/private-root.ts'
import { startSpiffeAgent, type SpiffeAgent } from './fixture/spiffe-agent.ts'
import { SpiffeAuthority } from './fixture/spiffe-authority.ts'
import { SpiffeClient } from './fixture/spiffe-client.ts'
import { until } from './fixture/unit.ts'

let agent: SpiffeAgent
let children: ChildProcess[] = []

describe.runIf(inPrivateRoot())('the Workload API', () => {
  beforeEach(async () => {
    agent = await startSpiffeAgent()
  })
  afterEach(async () => {
    for (const { pid } of children) {
      try {
        process.kill(-(pid as number), 'SIGKILL')
      } catch {
        // the whole group has ended
      }
    }
    children = []
    await agent[Symbol.asyncDispose]()
  })

  const message = (bytes: Uint8Array, flag = 0): Buffer => {
    const prefix = Buffer.alloc(5)
    prefix[0] = flag
    prefix.writeUInt32BE(bytes.length, 1)
    return Buffer.concat([prefix, bytes])
  }
  const EMPTY = message(Buffer.alloc(0))
  const X509 = '/SpiffeWorkloadAPI/FetchX509SVID'
  const JWT = '/SpiffeWorkloadAPI/FetchJWTSVID'

  test.each<[string, string, Buffer, number, OutgoingHttpHeaders?]>([
    ['no message', X509, Buffer.alloc(0), 3],
    ['half a prefix', X509, Buffer.alloc(3), 3],
    ['half a message', JWT, message(Buffer.alloc(9)).subarray(0, 8), 3],
    ['two messages', X509, Buffer.concat([EMPTY, EMPTY]), 3],
    ['a compressed message', X509, message(Buffer.alloc(0), 1), 12],
    ['a message that is too large', JWT, message(Buffer.alloc(17 * 1024)), 8],
    ['a length of four gigabytes', JWT, Buffer.from('00ffffffff', 'hex'), 8],
    ['a field that is cut off', JWT, message(Buffer.from('0aff', 'hex')), 3],
    ['a varint without end', JWT, message(Buffer.alloc(32, 0xff)), 3],
    ['a field of another type', JWT, message(Buffer.from('0801', 'hex')), 3],
    ['a field number of zero', JWT, message(Buffer.from('0001', 'hex')), 3],
    ['a group', JWT, message(Buffer.from('0b0c', 'hex')), 3],
    ['text that is not UTF-8', JWT, message(Buffer.from('0a01ff', 'hex')), 3],
    ['an unknown method', '/SpiffeWorkloadAPI/FetchAll', EMPTY, 12],
    ['a method of every object', '/SpiffeWorkloadAPI/constructor', EMPTY, 12],
    ['an unknown service', '/grpc.health.v1.Health/Check', EMPTY, 12],
  ])('answers a call with %s by a status', async (_what, path, body, status) => {
    using client = connectHttp2(agent.socket)
    expect(await client.call({ ':path': path }, body)).toMatchObject({
      ...{ http: 200, status: String(status) },
    })
    expect(agent.broker.evidence).toEqual([])
  })

  test('steps over fields that it does not know', async () => {
    using client = connectHttp2(agent.socket)
    // audience "a", then fields 15 (varint), 14 (fixed64), 13 (fixed32) and 12 (bytes)
    const body = Buffer.from(
      '0a0161' + '7801' + '710000000000000000' + '6d00000000' + '620161',
      'hex',
    )
    expect(await client.call({ ':path': JWT }, message(body))).toMatchObject({ status: '0' })
  })

  test.each(['v1', 'v1alpha'])('tells its description by reflection, %s', async (version) => {
    using client = connectHttp2(agent.socket)
    const path = `/grpc.reflection.${version}.ServerReflection/ServerReflectionInfo`
    // list_services, then file_containing_symbol of the service, then of nothing that is here
    const questions = [
      '3a0131',
      `2211${Buffer.from('SpiffeWorkloadAPI').toString('hex')}`,
      '220178',
    ]
    const body = Buffer.concat(questions.map((hex) => message(Buffer.from(hex, 'hex'))))
    const { status, text } = await client.call({ ':path': path, 'workload.spiffe.io': [] }, body)
    expect(status).toBe('0')
    for (const part of ['SpiffeWorkloadAPI', 'ValidateJWTSVIDRequest', 'no such file or symbol'])
      expect(text).toContain(part)
  })

  test('answers what is no gRPC in HTTP', async () => {
    using client = connectHttp2(agent.socket)
    expect(await client.call({ ':path': X509, ':method': 'GET' })).toMatchObject({ http: 405 })
    const json = { ':path': X509, 'content-type': 'application/json' }
    expect(await client.call(json, Buffer.from('{}'))).toMatchObject({ http: 415 })
  })

  test.each<[string, Buffer]>([
    ['HTTP/1.1', Buffer.from('POST /v1/token HTTP/1.1\r\nhost: agent\r\n\r\n')],
    ['noise', Buffer.from('f'.repeat(400))],
    ['a frame that is too large', Buffer.concat([PREFACE, frame(4, 0, 0, Buffer.alloc(100_000))])],
    ['settings that are cut short', Buffer.concat([PREFACE, frame(4, 0, 0, Buffer.alloc(5))])],
    [
      'data on no stream',
      Buffer.concat([PREFACE, frame(4, 0, 0, Buffer.alloc(0)), frame(0, 0, 0, EMPTY)]),
    ],
    [
      'headers that do not decode',
      Buffer.concat([
        PREFACE,
        frame(4, 0, 0, Buffer.alloc(0)),
        frame(1, 5, 1, Buffer.alloc(20, 0xff)),
      ]),
    ],
  ])('closes a connection of %s', async (_what, bytes) => {
    const socket = createConnection(agent.socket)
    const closed = once(socket, 'close')
    socket.on('error', () => undefined)
    socket.on('data', () => undefined)
    socket.write(bytes)
    await closed
    await stillServes()
  })

  test('answers a client that tells the path of the socket as :authority', async () => {
    const socket = createConnection(agent.socket)
    socket.on('error', () => undefined)
    let answer = Buffer.alloc(0)
    socket.on('data', (chunk) => (answer = Buffer.concat([answer, chunk])))
    socket.write(openCall('/SpiffeWorkloadAPI/FetchX509Bundles', agent.socket))
    const RST_STREAM = 3
    await until(() => frameTypes(answer).some((type) => type === 0 || type === RST_STREAM))
    expect(frameTypes(answer)).not.toContain(RST_STREAM)
    socket.destroy()
    await stillServes()
  })

  test('waits ten seconds for a client to begin, and for its message, not longer', async () => {
    const silent = createConnection(agent.socket)
    silent.on('error', () => undefined)
    using client = connectHttp2(agent.socket)
    const stream = client.session.request(grpcHeaders({ ':path': X509 }))
    stream.write(EMPTY.subarray(0, 2))
    stream.on('error', () => undefined)
    silent.resume()
    await Promise.all([once(silent, 'close'), once(stream, 'close')])
    expect(stream.rstCode).toBe(8)
  })

  test('bounds the calls of one user, and takes more when those end', async () => {
    const sessions = Array.from({ length: 10 }, () => connectHttp2(agent.socket))
    let refused = 0
    let told = 0
    for (const { session } of sessions) {
      await once(session, 'remoteSettings')
      for (let n = 0; n < 60; n += 1) {
        const stream = session.request(
          grpcHeaders({ ':path': '/SpiffeWorkloadAPI/FetchX509Bundles' }),
        )
        stream.on('error', () => undefined)
        stream.on('response', (headers) => {
          if (headers['grpc-status'] === '14') refused += 1
          else told += 1
        })
        stream.resume()
        stream.end(EMPTY)
      }
    }
    await until(() => refused + told === 600, 30_000)
    expect(told).toBeLessThanOrEqual(512)
    expect(refused).toBeGreaterThanOrEqual(88)
    for (const client of sessions) client[Symbol.dispose]()
    await until(() => sessions.every(({ session }) => session.destroyed))
    await stillServes()
  })

  test('bounds the calls of one connection', async () => {
    using client = connectHttp2(agent.socket)
    const [settings] = (await once(client.session, 'remoteSettings')) as [
      { maxConcurrentStreams: number },
    ]
    expect(settings.maxConcurrentStreams).toBe(64)
  })

  test('bounds the connections of one user, and leaks none', async () => {
    const before = readdirSync('/proc/self/fd').length
    const sockets: Socket[] = []
    let closed = 0
    for (let n = 0; n < 700; n += 1) {
      const socket = createConnection(agent.socket)
      socket.on('error', () => undefined)
      socket.on('close', () => (closed += 1))
      sockets.push(socket)
    }
    await until(() => closed >= 188, 30_000)
    for (const socket of sockets) socket.destroy()
    await until(() => closed === 700, 30_000)
    // Ours and the agent's: both run in this process.
    await until(() => readdirSync('/proc/self/fd').length <= before + 8, 30_000)
    await stillServes()
  })

  test('outlives a client that begins and cancels calls as fast as it can', async () => {
    using client = connectHttp2(agent.socket)
    await once(client.session, 'remoteSettings')
    for (let n = 0; n < 3000 && !client.session.destroyed; n += 1) {
      const stream = client.session.request(grpcHeaders({ ':path': X509 }))
      stream.on('error', () => undefined)
      stream.close(8)
      if (n % 100 === 0) await sleep(1)
    }
    await stillServes()
  })

  test('hangs up on a reader that does not read', async () => {
    const { broker } = agent
    broker.federated = Array.from({ length: 40 }, (_, n) => new SpiffeAuthority(`t${n}.test`))
    const socket = createConnection(agent.socket)
    socket.on('error', () => undefined)
    socket.write(openCall('/SpiffeWorkloadAPI/FetchX509Bundles'))
    const closed = once(socket, 'close')
    let isClosed = false
    void closed.then(() => (isClosed = true))
    // Neither reads nor opens its window; what is buffered for it has a bound.
    socket.pause()
    for (let n = 0; n < 200 && !isClosed; n += 1) {
      broker.federated = broker.federated.with(n % 40, new SpiffeAuthority(`t${n % 40}.test`))
      await sleep(40)
      if (n === 120) socket.resume()
    }
    await closed
    await stillServes()
  })

  test('gives two processes different keys, and measures for those that live only', async () => {
    agent.broker.ttlSeconds = 4
    const [one, two] = [startChild(), startChild()]
    const [first, second] = [await one.next(), await two.next()]
    expect(first['key']).not.toBe(second['key'])
    expect(first['certificate']).not.toBe(second['certificate'])
    const keys = agent.broker.evidence.map(({ workloadKey }) => workloadKey)
    expect(new Set(keys).size).toBe(keys.length)
    one.child.kill('SIGKILL')
    const again = await two.next()
    expect(again['key']).not.toBe(second['key'])
    const pids = agent.broker.evidence.slice(2).map(({ facts }) => facts.callerPid)
    expect(new Set(pids)).toEqual(new Set([two.child.pid]))
  })

  test('tells nothing more to a program that took the connection over by exec', async () => {
    agent.broker.ttlSeconds = 4
    const child = startPerl('exec')
    await child.until('spiffe://')
    const before = child.text()
    child.child.stdin?.write('\n')
    await child.until('EXECED')
    await child.until('CLOSED')
    const after = child.text().slice(before.length)
    expect(after).not.toContain('spiffe://')
    expect(after).not.toContain('grpc-status')
    expect(agent.broker.evidence).toHaveLength(1)
  })

  test('tells nothing more to who inherited the connection of a process that ended', async () => {
    const child = startPerl('orphan')
    await child.until('spiffe://')
    const before = child.text()
    child.child.stdin?.write('\n')
    await child.until('CLOSED')
    expect(child.text().slice(before.length)).not.toContain('spiffe://')
  })

  async function stillServes(): Promise<void> {
    using client = new SpiffeClient(agent.socket)
    const { message: bundles, end } = await client.stream('FetchX509Bundles').next()
    expect([Object.keys(bundles?.bundles ?? {}).length > 0, end]).toEqual([true, undefined])
  }

  function startChild(): { child: ChildProcess; next(): Promise<Record<string, string>> } {
    const file = new URL('fixture/spiffe-child.ts', import.meta.url).pathname
    const child = spawn(process.execPath, ['-C', '@bagcheck/source', file, agent.socket], {
      stdio: ['ignore', 'pipe', 'inherit'],
      detached: true,
    })
    children.push(child)
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    return {
      child,
      next: async () => JSON.parse((await lines.next()).value ?? '{}') as Record<string, string>,
    }
  }

  // Makes a call, prints what comes, and at a line on stdin lets another program have the connection.
  function startPerl(then: 'exec' | 'orphan') {
    const READ =
      'while (sysread($s, my $b, 65536)) { syswrite(STDOUT, $b) } print "CLOSED\\n"; sleep 1000'
    const script = `use IO::Socket::UNIX; use IO::Select; $^F = 255; $| = 1;
      my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or die;
      syswrite($s, pack('H*', $ARGV[1]));
      my $select = IO::Select->new($s, \\*STDIN);
      OUTER: while (my @ready = $select->can_read) { for (@ready) {
        last OUTER if $_ == \\*STDIN;
        sysread($s, my $b, 65536) or die; syswrite(STDOUT, $b);
      } }
      if ('${then}' eq 'exec') { exec '/usr/bin/perl', '-e', '$| = 1; open(my $s, "+<&=", $ARGV[0]); print "EXECED\\n"; ${READ}', fileno($s) }
      exit if fork; ${READ}`
    const call = openCall(X509).toString('hex')
    const child = spawn('/usr/bin/perl', ['-e', script, agent.socket, call], {
      stdio: ['pipe', 'pipe', 'inherit'],
      detached: true,
    })
    children.push(child)
    let text = ''
    child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
    return {
      child,
      text: () => text,
      until: (part: string) => until(() => text.includes(part), 60_000),
    }
  }
})

/** A client of node:http2 that sends what it is told. */
function connectHttp2(socketPath: string) {
  const session: ClientHttp2Session = connect('http://localhost', {
    createConnection: () => createConnection(socketPath),
  })
  session.on('error', () => undefined)
  return {
    session,
    async call(headers: OutgoingHttpHeaders, body?: Buffer) {
      const stream = session.request(grpcHeaders(headers), { endStream: body === undefined })
      let answer: Record<string, unknown> = {}
      stream.on('response', (fields) => (answer = { ...answer, ...fields }))
      stream.on('trailers', (fields) => (answer = { ...answer, ...fields }))
      stream.on('error', () => undefined)
      let text = ''
      stream.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
      if (body !== undefined) stream.end(body)
      await once(stream, 'close')
      return { http: answer[':status'], status: answer['grpc-status'], text }
    },
    [Symbol.dispose]: () => session.destroy(),
  }
}

function grpcHeaders(headers: OutgoingHttpHeaders): OutgoingHttpHeaders {
  return {
    ':method': 'POST',
    'content-type': 'application/grpc',
    te: 'trailers',
    'workload.spiffe.io': 'true',
    ...headers,
  }
}
