// What reflection tells is compared with what a parser of others makes of workload.proto.
import { fromJSON, loadFileDescriptorSetFromBuffer, loadSync } from '@grpc/proto-loader'
import { expect, test } from 'vitest'
import { structFile, workloadFile } from '../../../src/front/spiffe/reflection.ts'

const folder = new URL('../../fixture', import.meta.url).pathname
const options = { keepCase: true, includeDirs: [folder] }

test('the description that is told is that of workload.proto', () => {
  // FileDescriptorSet { repeated FileDescriptorProto file = 1 }
  const set = [structFile(), workloadFile()].flatMap((file) => [
    Buffer.from([0x0a, ...varint(file.length)]),
    file,
  ])
  const told = shapes(loadFileDescriptorSetFromBuffer(Buffer.concat(set), options))
  const written = shapes(loadSync('workload.proto', options))
  expect(Object.keys(told['SpiffeWorkloadAPI'] as object)).toHaveLength(7)
  for (const [name, shape] of Object.entries(written))
    if (!name.startsWith('google.')) expect(told[name], name).toEqual(shape)
})

function varint(value: number): number[] {
  return value < 128 ? [value] : [(value & 127) | 128, ...varint(value >> 7)]
}

/** Of a package: its messages by their fields, its services by their methods. */
function shapes(definitions: ReturnType<typeof fromJSON>): Record<string, unknown> {
  const entries = Object.entries(definitions).map(([name, one]) => {
    if ('type' in one && 'field' in (one.type as object)) {
      const { field } = one.type as {
        field: { name: string; number: number; type: string; label: string; typeName: string }[]
      }
      return [
        name,
        field.map(({ name: field_, number, type, label, typeName }) => [
          ...[field_, number, type, label],
          // A map's entry has a name of its own, which every tool makes up in its own way.
          typeName
            .slice(typeName.lastIndexOf('.') + 1)
            .replace(/Entry$/, '')
            .replaceAll('_', '')
            .toLowerCase(),
        ]),
      ]
    }
    const methods = Object.entries(one as Record<string, { path: string; responseStream: boolean }>)
    return [
      name,
      Object.fromEntries(
        methods.map(([method, { path, responseStream }]) => [method, [path, responseStream]]),
      ),
    ]
  })
  return Object.fromEntries(entries) as Record<string, unknown>
}
