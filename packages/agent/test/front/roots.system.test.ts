import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import {
  buildFileList,
  makeFileList,
  openLedger,
  openNixDatabase,
  readClosure,
  sha256Hex,
  type ClosureManifest,
  type StorePath,
} from '@bagcheck/nix'
import { nixAvailable, nixBuild, shellDerivation, startNixDaemon } from '@bagcheck/testkit'
import type { TestNixDaemon } from '@bagcheck/testkit'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createBrokerClient } from '../../src/front/broker-client.ts'
import { LocalClosures } from '../../src/front/local-closures.ts'
import { Roots } from '../../src/front/roots.ts'
import { AgentState } from '../../src/front/state.ts'
import { Measurer } from '../../src/measure/measurer.ts'
import { settledOf } from '../../src/measure/messages.ts'
import { sharedMemoryDevice } from '../../src/peer.ts'
import { FakeBroker, PIN } from '../fixture/fake-broker.ts'
import { inPrivateRoot } from '../fixture/private-root.ts'
import { startUnit } from '../fixture/unit.ts'

describe.runIf(inPrivateRoot() && nixAvailable())('the roots that fit a unit', () => {
  let directory: string
  let daemon: TestNixDaemon
  let broker: FakeBroker
  let state: AgentState
  let interpreter: StorePath
  let current: StorePath
  let next: StorePath
  let approved: ClosureManifest
  let nowMs = 0

  const manifestOf = async (root: StorePath): Promise<ClosureManifest> => {
    const database = openNixDatabase()
    try {
      return await readClosure(database, root)
    } finally {
      await database.close()
    }
  }
  const attest = async (root: StorePath): Promise<ClosureManifest> => {
    const manifest = await manifestOf(root)
    const files = await buildFileList(manifest)
    broker.attestations.set(manifest.digest, { manifest: manifest.text, files: files.text })
    return manifest
  }
  const approve = (...manifests: ClosureManifest[]): void => {
    const version = ((broker.policy as { version: number }).version ?? 0) + 1
    const roots = manifests.map(({ root, digest }) => ({ root, closure: digest }))
    const audiences = {
      'https://a': { maxAgeFullSeconds: 3600, minStrength: 'incremental' },
      'https://full': { maxAgeFullSeconds: 3600, minStrength: 'full' },
    }
    broker.policy = {
      version,
      trustDomain: 'demo.bagcheck.test',
      roles: { orders: { unit: { launcher: 'bagcheck-exec', name: 'orders' }, audiences, roots } },
    }
  }
  const withRoots = async <T>(use: (roots: Roots) => Promise<T>): Promise<T> => {
    const ledger = openLedger(state.ledgerFile)
    const url = `http://127.0.0.1:${(broker.server.address() as { port: number }).port}`
    const client = createBrokerClient({ url, ca: null })
    const now = (): number => nowMs
    const nix = { daemonSocket: daemon.socketPath, database: '/nix/var/nix/db/db.sqlite' }
    try {
      const roots = new Roots({
        ...{ state, ledger, now, intervalMs: 0, trustRootPin: PIN, broker: client },
        local: new LocalClosures(nix, now),
        log: () => undefined,
        hashContained: () => Promise.reject(new Error('no containers here')),
      })
      await roots.refreshPolicy((broker.policy as { version: number }).version)
      return await use(roots)
    } finally {
      client.close()
      ledger.close()
    }
  }
  /** Facts of the roots that fit a unit which runs the script of `root`. */
  const rootsOf = async (root: StorePath, audience = 'https://a') => {
    const measurement = await measure(root)
    return withRoots((roots) => roots.fitting(measurement, audience))
  }
  const measure = async (root: StorePath) => {
    const unitsDir = join(directory, 'units')
    const script = `${root}/lib/service.sh`
    const command = [`${interpreter}/bin/busybox`, 'sh', script] as const
    await using unit = await startUnit({ name: 'orders', unitsDir, command: [...command] })
    const measurer = new Measurer({
      ...{
        unitsDir,
        ociStateDirs: [],
        storeDir: '/nix/store',
        sharedMemoryDevice: sharedMemoryDevice(),
      },
    })
    return settledOf(measurer.measure(unit.instance()), 'none')
  }

  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'bagcheck-roots-'))
    daemon = await startNixDaemon(directory)
    broker = new FakeBroker()
    await broker.listen()
    state = AgentState.open(join(directory, 'state'))
    const busybox = shellDerivation('busybox', 'mkdir -p $out/bin; cp /bin/sh $out/bin/busybox')
    const service = (version: string): string =>
      shellDerivation(
        `orders-${version}`,
        `mkdir -p $out/lib; echo "# $busybox ${version}
sleep 1000" > $out/lib/service.sh; echo rates > $out/lib/rates.txt`,
        { busybox },
      )
    interpreter = nixBuild(busybox)
    current = nixBuild(service('1.0'))
    next = nixBuild(service('1.1'))
    approved = await attest(current)
    approve(approved)
    // What changed just now is not remembered: the time of the tests begins when the builds are long over.
    nowMs = Date.now() + 60_000
  })
  afterAll(async () => {
    await broker.close()
    await daemon.stop()
    rmSync(directory, { recursive: true })
  })

  test('are told with full strength at first and incremental after', async () => {
    const [first, ...none] = await rootsOf(current)
    expect(none).toEqual([])
    expect(first).toEqual({
      root: current,
      closureDigest: approved.digest,
      store: 'host',
      strength: 'full',
      checkedAt: Math.floor(nowMs / 1000),
      lastFullAt: Math.floor(nowMs / 1000),
      mismatch: null,
    })
    const [second] = await rootsOf(current)
    expect(second).toMatchObject({ strength: 'incremental', mismatch: null })
  })

  test('are read again in full when the policy’s age is reached', async () => {
    const began = nowMs
    nowMs += 3_600_000
    try {
      const [root] = await rootsOf(current)
      expect(root).toMatchObject({ strength: 'full', lastFullAt: Math.floor(nowMs / 1000) })
    } finally {
      nowMs = began
    }
  })

  test('are read again in full for an audience that takes nothing weaker, at most once a minute', async () => {
    const began = nowMs
    await rootsOf(current) // the ledger holds a full pass of now
    const measurement = await measure(current)
    try {
      await withRoots(async (roots) => {
        const ask = async (audience: string) => (await roots.fitting(measurement, audience))[0]
        expect(await ask('https://a')).toMatchObject({ strength: 'incremental' })
        const seconds = (): number => Math.floor(nowMs / 1000)
        nowMs += 1000
        const first = seconds()
        expect(await ask('https://full')).toMatchObject({
          ...{ strength: 'full', lastFullAt: first, checkedAt: first },
        })
        // Within the minute the same pass is told, with its own date; others get their incremental look.
        nowMs += 30_000
        const both = await Promise.all([ask('https://full'), ask('https://full')])
        for (const root of both)
          expect(root).toMatchObject({ strength: 'full', lastFullAt: first, checkedAt: first })
        expect(await ask('https://a')).toMatchObject({
          ...{ strength: 'incremental', lastFullAt: first, checkedAt: seconds() },
        })
        nowMs += 31_000
        expect(await ask('https://full')).toMatchObject({
          ...{ strength: 'full', lastFullAt: seconds() },
        })
      })
    } finally {
      nowMs = began
    }
  })

  test('are not told with an earlier full pass once something moved', async () => {
    const file = `${current}/lib/rates.txt`
    const good = readFileSync(file)
    const write = (content: string | Buffer): void => {
      chmodSync(file, 0o644)
      writeFileSync(file, content)
      chmodSync(file, 0o444)
    }
    const measurement = await measure(current)
    await withRoots(async (roots) => {
      const ask = async () => (await roots.fitting(measurement, 'https://full'))[0]
      expect(await ask()).toMatchObject({ strength: 'full', mismatch: null })
      write('bribes')
      expect((await ask())?.mismatch).toMatchObject({ path: current, file })
      write(good)
      expect((await ask())?.mismatch).toBeNull()
    })
  })

  test.each(['https://a', 'https://full'])(
    'are looked at anew for %s when the clock was set back since the last look',
    async (audience) => {
      const file = `${current}/lib/rates.txt`
      const good = readFileSync(file)
      const write = (content: string | Buffer): void => {
        chmodSync(file, 0o644)
        writeFileSync(file, content)
        chmodSync(file, 0o444)
      }
      const measurement = await measure(current)
      const began = nowMs
      await withRoots(async (roots) => {
        const ask = async () => (await roots.fitting(measurement, audience))[0]
        nowMs = began + 3_600_000
        expect((await ask())?.mismatch).toBeNull()
        nowMs = began
        write('bribes')
        expect((await ask())?.mismatch).toMatchObject({ path: current, file })
        write(good)
        // And no check of the future is told, which the broker would not believe.
        const seconds = Math.floor(began / 1000)
        for (let look = 0; look < 2; look += 1)
          expect(await ask()).toMatchObject({
            ...{ mismatch: null, checkedAt: seconds, lastFullAt: seconds },
          })
      }).finally(() => (nowMs = began))
    },
  )

  test('name the file that was altered, and are whole again once it is restored', async () => {
    const file = `${current}/lib/rates.txt`
    const good = readFileSync(file)
    chmodSync(file, 0o644)
    writeFileSync(file, 'bribes')
    chmodSync(file, 0o444)
    const [altered] = await rootsOf(current)
    expect(altered?.mismatch).toMatchObject({ path: current, file })
    chmodSync(file, 0o644)
    writeFileSync(file, good)
    chmodSync(file, 0o444)
    const [restored] = await rootsOf(current)
    expect(restored?.mismatch).toBeNull()
  })

  test('are not good because a file list holds what was altered', async () => {
    const file = `${current}/lib/service.sh`
    const good = readFileSync(file)
    const evil = `# ${interpreter} 6.6.6\nsleep 1000\n`
    const write = (content: string | Buffer): void => {
      chmodSync(file, 0o644)
      writeFileSync(file, content)
      chmodSync(file, 0o444)
    }
    // Whoever attests first chooses the list that the broker hands out, and the agent keeps it.
    const texts = broker.attestations.get(approved.digest)!
    const { files } = await buildFileList(approved)
    const forged = makeFileList(
      files.map((listed) =>
        listed.path === file
          ? { ...listed, sha256: sha256Hex(evil), size: Buffer.byteLength(evil) }
          : listed,
      ),
    )
    broker.attestations.set(approved.digest, { ...texts, files: forged.text })
    rmSync(join(directory, 'state/attestations'), { recursive: true })
    state = AgentState.open(join(directory, 'state'))
    try {
      expect((await rootsOf(current))[0]).toMatchObject({ mismatch: null })
      broker.attestations.set(approved.digest, texts) // the right attestation comes later
      write(evil)
      expect((await rootsOf(current))[0]?.mismatch).toMatchObject({ path: current, kind: 'nar' })
    } finally {
      write(good)
      rmSync(join(directory, 'state/attestations'), { recursive: true })
      state = AgentState.open(join(directory, 'state'))
    }
    expect((await rootsOf(current))[0]?.mismatch).toBeNull()
  })

  test('of a version that nobody approved are told by the local Nix’s word', async () => {
    const local = await manifestOf(next)
    expect(await rootsOf(next)).toEqual([
      {
        root: next,
        closureDigest: local.digest,
        store: 'host',
        strength: 'path-claim',
        checkedAt: Math.floor(nowMs / 1000),
        lastFullAt: 0,
        mismatch: null,
      },
    ])
  })

  test('tell two approved versions on one interpreter apart by the script', async () => {
    const second = await attest(next)
    approve(approved, second)
    expect((await rootsOf(current)).map(({ closureDigest }) => closureDigest)).toEqual([
      approved.digest,
    ])
    expect((await rootsOf(next)).map(({ closureDigest }) => closureDigest)).toEqual([second.digest])
    approve(approved)
  })

  test('without an attestation at the broker come from the local Nix, if its digest is the approved one', async () => {
    const local = await manifestOf(next)
    broker.attestations.delete(local.digest)
    approve(approved, local)
    rmSync(join(directory, 'state/attestations'), { recursive: true })
    state = AgentState.open(join(directory, 'state'))
    const [root] = await rootsOf(next)
    expect(root).toMatchObject({ root: next, closureDigest: local.digest, mismatch: null })
    approve(approved)
  })

  test('a manifest with another digest than the policy’s is not believed', async () => {
    const texts = broker.attestations.get(approved.digest)!
    const other = await manifestOf(next)
    rmSync(join(directory, 'state/attestations'), { recursive: true })
    state = AgentState.open(join(directory, 'state'))
    const renamed = { ...approved, digest: 'f'.repeat(64) as typeof approved.digest }
    approve(renamed)
    broker.attestations.set(renamed.digest, { manifest: other.text, files: texts.files })
    // Neither the broker's text nor the local closure has that digest: only the local claim is told.
    expect(await rootsOf(current)).toEqual([
      expect.objectContaining({ closureDigest: approved.digest, strength: 'path-claim' }),
    ])
    approve(approved)
  })

  test('a policy that goes back, or hangs on another trust root, is refused', async () => {
    const now = broker.policy as { version: number }
    broker.policy = { ...now, version: 1 }
    await expect(withRoots(() => Promise.resolve())).rejects.toMatchObject({
      code: 'POLICY_ROLLBACK',
    })
    broker.policy = now
  })
})
