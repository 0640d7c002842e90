// A token that rests on two closures, the service's and the host's system: decided by the broker, exported, and
// checked again by the auditor, who must need nothing but the file.
import { canonicalize, parseCanonical, TOKEN_CLAIM } from '@bagcheck/attest'
import { buildManifest, makeFileList, parseNarHash, parseStorePath, sha256Hex } from '@bagcheck/nix'
import { attestClosure, mappedFile } from '@bagcheck/testkit'
import { decodeJwt } from 'jose'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { verifyEvidenceBundle } from '../packages/cli/src/evidence/verify.ts'
import { parseDecision, readEnvelopeText } from '../packages/broker/src/audit.ts'
import { bodyOf, expectRefusal } from '../packages/broker/test/gate/answers.ts'
import {
  createInstallation,
  type EvidenceChange,
  type Installation,
} from '../packages/broker/test/gate/installation.ts'

const SYSTEM = parseStorePath('/nix/store/22222222222222222222222222222222-nixos-system')
const MODULE = parseStorePath('/nix/store/33333333333333333333333333333333-nss-mdns')
const NSS = `${MODULE}/lib/libnss_mdns.so.2`
const narHash = parseNarHash(`sha256-${'A'.repeat(43)}=`)

const manifest = buildManifest(SYSTEM, [
  { path: SYSTEM, narHash, narSize: 400, references: [MODULE] },
  { path: MODULE, narHash, narSize: 400, references: [] },
])
const files = makeFileList([{ path: NSS, sha256: sha256Hex('nss'), size: 3, executable: false }])
const mapsNss: EvidenceChange = {
  edit: (e) => e.facts.processes[0].files.push(mappedFile(NSS, sha256Hex('nss'))),
}

let self: Installation
beforeAll(async () => {
  self = await createInstallation()
  await self.ready()
  const hosts = `hosts:\n  demo:\n    signers: [ci]\n    systems:\n      - { root: ${SYSTEM}, closure: ${manifest.digest} }\nroles:\n`
  const allow = `    allow: { hostObjects: [{ sha256: ${sha256Hex('nss')}, reason: mDNS }] }\n`
  const edit = (text: string): string => text.replace('roles:\n', hosts) + allow
  const prev = self.policy().sha256
  expect((await self.publish({ version: 2, prev, edit })).status).toBe(200)
})
afterAll(() => self[Symbol.asyncDispose]())

test('a host object gets no token before its system was attested, and then an audit needs the file alone', async () => {
  const node = await self.enrol()
  await expectRefusal(
    await self.token(await self.evidence(node, mapsNss)),
    403,
    'HOST_OBJECT_NOT_IN_SYSTEM',
  )
  const { request } = attestClosure({ manifest, files }, self.ci)
  expect((await self.request('POST', '/v1/attestations', request)).status).toBe(200)

  const { decision } = await bodyOf(await self.token(await self.evidence(node, mapsNss)))
  const exported = await self.request('GET', `/v1/evidence/${decision}`, undefined, true)
  const text = await exported.text()
  const used = [{ path: NSS, sha256: sha256Hex('nss'), system: manifest.digest }]
  const bundle = verifyEvidenceBundle(Buffer.from(text), { trust: self.pin as never })
  expect(bundle.decision.hostObjects).toEqual(used)
  expect(bundle.approval.hostObjects).toEqual(used)

  // oxlint-disable-next-line typescript/no-explicit-any
  const without = parseCanonical(text) as any
  without.systems = []
  expect(() =>
    verifyEvidenceBundle(Buffer.from(canonicalize(without)), { trust: self.pin as never }),
  ).toThrow('the number of attestations')
})

test('a host that must run an approved system is judged again from the file alone', async () => {
  const edit = (text: string): string =>
    text.replace(
      'roles:\n',
      `hosts:\n  demo:\n    signers: [ci]\n    require: { approvedSystem: true }\n    systems:\n      - { root: ${SYSTEM}, closure: ${manifest.digest} }\nroles:\n`,
    )
  const prev = self.broker.policy.installed().sha256
  expect((await self.publish({ version: 3, prev, edit })).status).toBe(200)
  const node = await self.enrol()
  await expectRefusal(await self.token(await self.evidence(node)), 403, 'HOST_SYSTEM_NOT_APPROVED')
  const runs: EvidenceChange = {
    edit: (e) => Object.assign(e.host, { currentSystem: SYSTEM, bootedSystem: SYSTEM }),
  }
  const { decision } = await bodyOf(await self.token(await self.evidence(node, runs)))
  const exported = await self.request('GET', `/v1/evidence/${decision}`, undefined, true)
  const bytes = Buffer.from(await exported.text())
  expect(verifyEvidenceBundle(bytes, { trust: self.pin as never }).decision).toMatchObject({
    systems: [manifest.digest],
    hostObjects: [],
  })
})

test('a token says that code was made at run time, where it was, and so does its decision', async () => {
  const allow = `    allow: { jit: [{ runtime: ${sha256Hex('node')}, maxRegions: 2, maxBytes: 8192 }] }\n`
  const prev = self.broker.policy.installed().sha256
  expect((await self.publish({ version: 4, prev, edit: (text) => text + allow })).status).toBe(200)
  const node = await self.enrol()
  const memory = { kind: 'anonymous', name: '', regions: 2, bytes: 8192 }
  const claimOf = async (change?: EvidenceChange): Promise<unknown> => {
    const answer = await bodyOf(await self.token(await self.evidence(node, change)))
    const { content } = parseDecision(
      await readEnvelopeText(self.broker, answer.log_index as number),
    )
    const { jit } = decodeJwt(answer.access_token)[TOKEN_CLAIM] as { jit?: boolean }
    expect(content.jit).toBe(jit === true)
    return jit
  }
  expect(await claimOf()).toBeUndefined()
  const makes: EvidenceChange = {
    edit: (e) => e.facts.processes[0].executableMemory.push(memory),
  }
  expect(await claimOf(makes)).toBe(true)
})
