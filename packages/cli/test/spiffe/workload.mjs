// A service on SPIFFE as its developers would write it, with a gRPC library of others: takes its SVIDs from the
// Workload API, and talks to another service over TLS that both sides verify. Prints what happens as JSON lines.
//   PEER   host:port of a service to talk to; without it, it serves
import { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { connect, createServer } from 'node:tls'
import { credentials, loadPackageDefinition, Metadata } from '@grpc/grpc-js'
import { loadSync } from '@grpc/proto-loader'

const tell = (event, more) => console.log(JSON.stringify({ event, ...more }))
const note = JSON.parse(readFileSync(new URL('../share/note.json', import.meta.url), 'utf8'))
tell('start', { note: note.note })

const proto = new URL('workload.proto', import.meta.url).pathname
const { SpiffeWorkloadAPI } = loadPackageDefinition(loadSync(proto, { keepCase: true }))
const address = process.env['SPIFFE_ENDPOINT_SOCKET'] ?? ''
const client = new SpiffeWorkloadAPI(address, credentials.createInsecure())
const metadata = new Metadata()
metadata.set('workload.spiffe.io', 'true')

/** DER certificates, one after the other, as PEM. */
function pems(der) {
  const out = []
  for (let at = 0; at < der.length;) {
    // SEQUENCE with a length of two bytes: every certificate is between 256 and 65,535 bytes long.
    const length = 4 + der.readUInt16BE(at + 2)
    out.push(new X509Certificate(der.subarray(at, at + length)).toString())
    at += length
  }
  return out.join('')
}

const identityOf = (svid) => ({
  cert: pems(svid.x509_svid),
  key: `-----BEGIN PRIVATE KEY-----\n${svid.x509_svid_key.toString('base64')}\n-----END PRIVATE KEY-----\n`,
  ca: pems(svid.bundle),
})
const peerOf = (socket) => new X509Certificate(socket.getPeerCertificate().raw).subjectAltName

function serve(svid) {
  const options = { ...identityOf(svid), requestCert: true, rejectUnauthorized: true }
  const server = createServer(options, (socket) => {
    tell('caller', { id: peerOf(socket) })
    socket.end('hello')
  })
  server.on('tlsClientError', (error) => tell('refused', { code: error.code }))
  server.listen(0, '127.0.0.1', () => tell('serving', { port: server.address().port }))
}

function talk(svid, peer) {
  const [host, port] = peer.split(':')
  const options = { ...identityOf(svid), host, port: Number(port) }
  // The name to expect is a SPIFFE ID, not a host name.
  const socket = connect({ ...options, checkServerIdentity: () => undefined }, () =>
    tell('server', { id: peerOf(socket) }),
  )
  socket.on('data', (data) => tell('answer', { text: data.toString() }))
  socket.on('error', (error) => tell('unreached', { code: error.code }))
}

let isFirst = true
const stream = client.FetchX509SVID({}, metadata)
stream.on('error', () => undefined)
stream.on('data', ({ svids: [svid] }) => {
  const certificate = new X509Certificate(svid.x509_svid)
  tell('svid', {
    id: svid.spiffe_id,
    serial: certificate.serialNumber,
    validTo: certificate.validTo,
  })
  if (!isFirst) return
  isFirst = false
  const peer = process.env['PEER']
  if (peer === undefined) serve(svid)
  else talk(svid, peer)
})
stream.on('status', ({ code, details }) => tell('end', { code, details }))

const request = { audience: [process.env['AUDIENCE'] ?? ''] }
client.FetchJWTSVID(request, metadata, (error, answer) => {
  if (error) return tell('no-jwt', { code: error.code, details: error.details })
  const [{ spiffe_id: id, svid }] = answer.svids
  client.ValidateJWTSVID({ audience: request.audience[0], svid }, metadata, (invalid, valid) =>
    tell('jwt', { id, valid: valid?.spiffe_id ?? invalid.details }),
  )
})
