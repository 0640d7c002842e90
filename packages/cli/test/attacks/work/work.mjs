// Ordinary work on Node: allocates, compresses, hashes, serves HTTP to itself, works in a thread; then asks for a
// token, over and over.
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import { gunzipSync, gzipSync } from 'node:zlib'

const { AGENT_SOCKET, AUDIENCE } = process.env
const directory = mkdtempSync('/tmp/bagcheck-work-')
process.on('exit', () => rmSync(directory, { recursive: true, force: true }))

function request(options, body) {
  return new Promise((resolve, reject) => {
    const call = http.request(options, (response) => {
      let text = ''
      response.setEncoding('utf8').on('data', (chunk) => (text += chunk))
      response.on('end', () => resolve({ status: response.statusCode, body: JSON.parse(text) }))
    })
    call.on('error', reject)
    call.end(body)
  })
}

const server = http.createServer((incoming, outgoing) => {
  outgoing.end(JSON.stringify({ path: incoming.url, sum: [1, 2, 3].reduce((a, b) => a + b) }))
})
await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
const { port } = server.address()
console.log('{"ready":true}')

for (let round = 0; ; round += 1) {
  const rows = Array.from({ length: 20_000 }, (_, i) => ({
    i,
    text: `row ${i * round}`,
    at: new Date(i),
  }))
  const packed = gzipSync(JSON.stringify(rows.toSorted((a, b) => b.text.localeCompare(a.text))))
  writeFileSync(join(directory, 'rows.gz'), packed)
  const hash = createHash('sha256').update(gunzipSync(readFileSync(join(directory, 'rows.gz'))))
  // Code that is new each time, so that an engine that compiles does.
  // oxlint-disable-next-line typescript/no-implied-eval -- the point of it
  const compute = new Function(
    'n',
    `let s = 0; for (let i = 0; i < n; i++) s += i ^ ${round}; return s`,
  )
  compute(200_000)
  hash.digest('hex')
  for (let i = 0; i < 5; i += 1) await request({ host: '127.0.0.1', port, path: `/${i}` })
  if (round % 10 === 0) {
    const worker = new Worker('let s = 0; for (let i = 0; i < 1e6; i++) s += i', { eval: true })
    await new Promise((resolve) => worker.once('exit', resolve))
  }
  await sleep(1000)
  const headers = { 'content-type': 'application/json' }
  const body = JSON.stringify({ audience: AUDIENCE })
  const answer = await request(
    { socketPath: AGENT_SOCKET, method: 'POST', path: '/v1/token', headers },
    body,
  )
  console.log(answer.status === 200 ? '{"token":true}' : JSON.stringify(answer.body))
}
