// Who is on each connection. A caller is identified when it connects and is looked at again at every
// request and before every answer: pidfd, start time, executable and text address must be the same, or
// the connection is closed. An exec on an open connection would else be answered in its predecessor's name.
import type { Socket } from 'node:net'
import { AgentError } from '../error.ts'
import { assertInstance, readInstance } from '../measure/instance.ts'
import type { ProcessInstance } from '../measure/messages.ts'
import { closePidfd, endedProcesses, identifyPeer, type Peer } from '../peer.ts'

const MAX_CONNECTIONS_PER_USER = 512

/** The process behind a connection. */
export interface Caller {
  readonly peer: Peer
  readonly instance: ProcessInstance
}

/** Callers by socket. */
export class Callers {
  readonly #callers = new WeakMap<Socket, Caller>()
  readonly #perUser = new Map<number, number>()
  readonly #options: { fallback?: boolean }

  constructor(options: { fallback?: boolean } = {}) {
    this.#options = options
  }

  /**
   * Identifies who connected `socket`; lets go of the process when the socket closes.
   * @throws {AgentError} PEER_UNKNOWN, REQUEST_LIMIT, PROCESS_GONE, PROC_UNREADABLE
   */
  admit(socket: Socket): void {
    const peer = identifyPeer(socket, this.#options)
    try {
      const connections = this.#perUser.get(peer.uid) ?? 0
      if (connections >= MAX_CONNECTIONS_PER_USER)
        throw new AgentError('REQUEST_LIMIT', `too many connections of user ${peer.uid}`)
      const instance = readInstance(peer.pid)
      // Read through the pid; still the pinned process if that lives now.
      if (endedProcesses([peer.pidfd]).length > 0)
        throw new AgentError('PROCESS_GONE', `process ${peer.pid} has ended`)
      this.#callers.set(socket, { peer, instance })
      this.#perUser.set(peer.uid, connections + 1)
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
  }

  /**
   * The caller on `socket`, still running what it ran when it connected.
   * @throws {AgentError} PEER_UNKNOWN, PROCESS_GONE, PROCESS_MOVED
   */
  check(socket: Socket): Caller {
    const caller = this.#callers.get(socket)
    if (caller === undefined || socket.destroyed)
      throw new AgentError('PEER_UNKNOWN', 'expected an identified connection')
    if (endedProcesses([caller.peer.pidfd]).length > 0)
      throw new AgentError('PROCESS_GONE', `process ${caller.peer.pid} has ended`)
    assertInstance(caller.instance)
    return caller
  }
}
