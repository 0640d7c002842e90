// Who is on each connection. A caller is identified when it connects and is looked at again at every
// request and before every answer: pidfd, start time, executable and text address must be the same, or
// the connection is closed. An exec on an open connection would else be answered in its predecessor's name.
import type { Socket } from 'node:net'
import { AgentError } from '../error.ts'
import type { ProcessInstance } from '../measure/messages.ts'
import { closePidfd, endedProcesses, identifyPeer, type Peer } from '../peer.ts'
import type { Measurers } from './measurer-client.ts'

const MAX_CONNECTIONS_PER_USER = 512

/** The process behind a connection. */
export interface Caller {
  readonly peer: Peer
  readonly instance: ProcessInstance
  /** True while the connection pins the process and the process lives. */
  readonly isPinned: () => boolean
}

/** Callers by socket. */
export class Callers {
  readonly #callers = new WeakMap<Socket, Promise<Caller>>()
  readonly #perUser = new Map<number, number>()
  readonly #measurer: Pick<Measurers, 'instance' | 'check'>
  readonly #options: { fallback?: boolean }

  constructor(
    measurer: Pick<Measurers, 'instance' | 'check'>,
    options: { fallback?: boolean } = {},
  ) {
    this.#measurer = measurer
    this.#options = options
  }

  /**
   * Pins who connected `socket`, tells who that is by the kernel's word, and begins to identify what it runs; lets
   * go of the process when the socket closes.
   * @throws {AgentError} PEER_UNKNOWN, REQUEST_LIMIT
   */
  admit(socket: Socket): Peer {
    const peer = identifyPeer(socket, this.#options)
    try {
      const connections = this.#perUser.get(peer.uid) ?? 0
      if (connections >= MAX_CONNECTIONS_PER_USER)
        throw new AgentError('REQUEST_LIMIT', `too many connections of user ${peer.uid}`)
      this.#perUser.set(peer.uid, connections + 1)
      const caller = this.#identify(socket, peer)
      caller.catch(() => undefined) // whoever asks on this connection hears of it
      this.#callers.set(socket, caller)
    } catch (error) {
      closePidfd(peer.pidfd)
      throw error
    }
    socket.once('close', () => {
      closePidfd(peer.pidfd)
      const left = (this.#perUser.get(peer.uid) ?? 1) - 1
      if (left > 0) this.#perUser.set(peer.uid, left)
      else this.#perUser.delete(peer.uid)
    })
    return peer
  }

  /**
   * The caller on `socket`, still running what it ran when it connected.
   * @throws {AgentError} PEER_UNKNOWN, PROCESS_GONE, PROCESS_MOVED; what the measurer throws
   */
  async check(socket: Socket): Promise<Caller> {
    const caller = await this.#callers.get(socket)
    if (caller === undefined) throw unidentified()
    await this.#measurer.check(caller.instance)
    if (socket.destroyed) throw unidentified()
    // What was read through the pid was read of the pinned process if that lives now.
    if (caller.isPinned()) return caller
    throw new AgentError('PROCESS_GONE', `process ${caller.peer.pid} has ended`)
  }

  async #identify(socket: Socket, peer: Peer): Promise<Caller> {
    const instance = await this.#measurer.instance(peer.pid)
    // The pidfd is closed with the socket: its number may be another's then.
    const isPinned = (): boolean => !socket.destroyed && endedProcesses([peer.pidfd]).length === 0
    return { peer, instance, isPinned }
  }
}

const unidentified = (): AgentError =>
  new AgentError('PEER_UNKNOWN', 'expected an identified connection')
