// Sockets below /run: how they are made, and who may be at their other end.
import { chmodSync, mkdirSync, rmSync, statSync } from 'node:fs'
import { createConnection, type Server, type Socket } from 'node:net'
import { dirname } from 'node:path'
import { AgentError, quote } from './error.ts'
import { peerUser } from './peer.ts'

/**
 * Listens at `path`, in the place of a server that is gone. Everybody may connect: who it is decides.
 * @throws {AgentError} STATE_INVALID if somebody serves it
 */
export async function listenAt(server: Server, path: string): Promise<void> {
  makePublicDirectory(dirname(path))
  if (await isServed(path))
    throw new AgentError('STATE_INVALID', `another agent serves ${quote(path)}`)
  rmSync(path, { force: true })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, resolve)
  })
  chmodSync(path, 0o666)
}

/**
 * Connects to what whoever owns the directory of `path` serves there, and nobody else can.
 * @throws {AgentError} MEASURER_UNREACHABLE
 */
export function connectToOwner(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = createConnection(path)
    const refuse = (reason: string, cause?: unknown): void => {
      socket.destroy()
      reject(new AgentError('MEASURER_UNREACHABLE', `${quote(path)}: ${reason}`, { cause }))
    }
    socket.once('error', (error) => refuse('no measurer listens', error))
    socket.once('connect', () => {
      try {
        const { uid, mode } = statSync(dirname(path))
        if ((mode & 0o022) !== 0) return refuse('others than its owner may write to its directory')
        if (peerUser(socket) !== uid) return refuse(`expected a measurer of user ${uid}`)
      } catch (error) {
        return refuse('who listens cannot be told', error)
      }
      socket.removeAllListeners('error')
      resolve(socket)
    })
  })
}

/** Makes a socket's directory, which everybody may enter and only its owner change, if there is none. */
export function makePublicDirectory(path: string): void {
  const made = mkdirSync(path, { recursive: true, mode: 0o755 })
  if (made !== undefined) chmodSync(path, 0o755) // whatever the umask
}

function isServed(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(path)
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
