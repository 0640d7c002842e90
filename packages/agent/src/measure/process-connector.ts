// The socket on which the kernel tells every fork, exec, change of ids and ptrace of the host. Opening it needs
// CAP_NET_ADMIN in the initial user, pid and network namespaces; reading what comes needs nothing, so it is
// opened once, before capabilities are dropped, and read ever after. Native calls of socket(2) and its family.
//
// A filter in the kernel lets pass what PROCESS_EVENTS names: a host that starts many threads or ends many
// processes wakes nobody for them.
import { readlinkSync } from 'node:fs'
import { endianness } from 'node:os'
import koffi from 'koffi'
import { CN_IDX_PROC, CN_VAL_PROC, PROCESS_EVENTS, WHAT_OFFSET } from './process-event.ts'

// <sys/socket.h>, <linux/netlink.h>, <linux/connector.h>, <linux/cn_proc.h>, <linux/filter.h>, <errno.h>
const [AF_NETLINK, SOCK_DGRAM, SOCK_CLOEXEC, NETLINK_CONNECTOR] = [16, 2, 0o2000000, 11]
const [SOL_SOCKET, SO_ATTACH_FILTER, SO_RCVBUFFORCE, SO_RCVBUF] = [1, 26, 33, 8]
const [MSG_DONTWAIT, NLMSG_DONE, PROC_CN_MCAST_LISTEN, POLLIN] = [0x40, 3, 1, 1]
const [EINTR, EAGAIN, ENOBUFS] = [4, 11, 105]
/** PROC_PID_INIT_INO, <linux/proc_ns.h>. */
const INITIAL_PID_NAMESPACE = 'pid:[4026531836]'
/** Some 10,000 events that nobody has read yet. */
const RECEIVE_BUFFER_BYTES = 8 * 1024 * 1024
/** An event takes 76 bytes. */
const MAX_DATAGRAM_BYTES = 512

const libc = koffi.load(null)
const socket = libc.func('int socket(int, int, int)')
const bind = libc.func('int bind(int, const uint8_t *, uint32_t)')
const send = libc.func('long send(int, const uint8_t *, size_t, int)')
const setsockopt = libc.func('int setsockopt(int, int, int, const uint8_t *, uint32_t)')
const poll = libc.func('int poll(_Inout_ uint8_t *, unsigned long, int)')
const close = libc.func('int close(int)')
const recvfrom = libc.func(
  'long recvfrom(int, _Out_ uint8_t *, size_t, int, _Out_ uint8_t *, _Inout_ uint32_t *)',
)
/** struct sock_fprog: a count and a pointer to the instructions. */
const Program = koffi.struct('BagcheckSockFprog', { count: 'uint16_t', filter: 'uint8_t *' })
const attachFilter = libc.func('setsockopt', 'int', [
  ...['int', 'int', 'int'],
  koffi.pointer(Program),
  'uint32_t',
])

/** Where events come from. */
export interface ProcessConnector {
  readonly fd: number
}

/**
 * Opens the connector, or says why this host or this process has none.
 * @param receiveBufferBytes what the kernel keeps for a reader that is late
 */
export function openProcessConnector(
  receiveBufferBytes: number = RECEIVE_BUFFER_BYTES,
): ProcessConnector | { readonly reason: string } {
  // What is told is told by pids that mean nothing elsewhere.
  if (readlinkSync('/proc/self/ns/pid') !== INITIAL_PID_NAMESPACE)
    return { reason: 'not in the initial pid namespace' }
  const fd = Number(socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR))
  if (fd < 0) return failed('socket')
  const give = (step: string): { readonly reason: string } => {
    const reason = failed(step)
    close(fd)
    return reason
  }
  const size = u32(receiveBufferBytes)
  if (Number(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, size, 4)) !== 0)
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, size, 4) // as much as there is
  const filter = kernelFilter()
  const program = { count: filter.length / 8, filter }
  if (Number(attachFilter(fd, SOL_SOCKET, SO_ATTACH_FILTER, program, koffi.sizeof(Program))) !== 0)
    return give('SO_ATTACH_FILTER')
  // struct sockaddr_nl: family, padding, port (0: the kernel chooses), multicast groups
  const address = Buffer.concat([u16(AF_NETLINK), u16(0), u32(0), u32(CN_IDX_PROC)])
  if (Number(bind(fd, address, address.length)) !== 0) return give('bind')
  if (Number(send(fd, listenMessage(), listenMessage().length, 0)) < 0) return give('send')
  return { fd }
}

/** Closes what {@link openProcessConnector} opened. */
export function closeProcessConnector({ fd }: ProcessConnector): void {
  close(fd)
}

/** True if something can be read within `timeoutMs`. Blocks: for a thread of its own. */
export function waitForEvents({ fd }: ProcessConnector, timeoutMs: number): boolean {
  // struct pollfd { int fd; short events; short revents; }
  const entry = Buffer.concat([u32(fd), u16(POLLIN), u16(0)])
  return Number(poll(entry, 1, timeoutMs)) > 0
}

/** Reads one datagram of the kernel into `into`. */
export function readDatagram(
  { fd }: ProcessConnector,
  into: Uint8Array,
): { readonly length: number } | 'none' | 'lost' {
  const sender = Buffer.alloc(12)
  const senderSize = new Uint32Array([sender.length])
  const length = Number(recvfrom(fd, into, into.length, MSG_DONTWAIT, sender, senderSize))
  if (length >= 0) {
    // Only the kernel has port 0; anybody who may open such a socket could write to ours.
    const isKernel = sender.readUInt32LE(4) === 0
    return { length: isKernel ? length : 0 }
  }
  const errno = koffi.errno()
  if (errno === EAGAIN || errno === EINTR) return 'none'
  if (errno === ENOBUFS) return 'lost'
  throw new Error(`recvfrom on the process connector: errno ${errno}`)
}

/** A buffer for {@link readDatagram}. */
export function datagramBuffer(): { readonly bytes: Uint8Array; readonly view: DataView } {
  const bytes = new Uint8Array(MAX_DATAGRAM_BYTES)
  return { bytes, view: new DataView(bytes.buffer) }
}

/** Asks for events: nlmsghdr, cn_msg and the operation. */
function listenMessage(): Buffer {
  const operation = u32(PROC_CN_MCAST_LISTEN)
  const message = [
    ...[u32(CN_IDX_PROC), u32(CN_VAL_PROC), u32(0), u32(0)],
    ...[u16(operation.length), u16(0), operation],
  ]
  const body = Buffer.concat(message)
  return Buffer.concat([u32(16 + body.length), u16(NLMSG_DONE), u16(0), u32(0), u32(0), body])
}

/**
 * Classic BPF: load `what`, pass the datagram if it is one of ours. The load is in network byte order, so the
 * values are turned round on a little-endian machine.
 */
function kernelFilter(): Buffer {
  const [LOAD_WORD, JUMP_EQUAL, RETURN] = [0x20, 0x15, 0x06]
  const wanted = Object.values(PROCESS_EVENTS)
  const inNetworkOrder = (value: number): number =>
    endianness() === 'LE' ? Buffer.from(u32(value)).readUInt32BE() : value
  const step = (code: number, ifTrue: number, ifFalse: number, k: number): Buffer =>
    Buffer.concat([u16(code), Buffer.from([ifTrue, ifFalse]), u32(k)])
  return Buffer.concat([
    step(LOAD_WORD, 0, 0, WHAT_OFFSET),
    // A match jumps over the comparisons that are left and over the refusal.
    ...wanted.map((what, index) =>
      step(JUMP_EQUAL, wanted.length - index, 0, inNetworkOrder(what)),
    ),
    step(RETURN, 0, 0, 0),
    step(RETURN, 0, 0, 0xffff_ffff),
  ])
}

function failed(step: string): { readonly reason: string } {
  return { reason: `${step}: errno ${koffi.errno()}` }
}

function u32(value: number): Buffer {
  return Buffer.from(new Uint32Array([value]).buffer)
}

function u16(value: number): Buffer {
  return Buffer.from(new Uint16Array([value]).buffer)
}
