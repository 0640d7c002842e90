// gRPC server reflection (grpc.reflection.v1, and v1alpha, which most tools still ask first): tells the
// Workload API's description, made from the same table as its encoding. It needs no header and tells nothing
// that is not in the standard.
import { METHODS, STRUCT_MESSAGES } from './messages.ts'
import type { Call } from './grpc.ts'
import {
  bool,
  bytes,
  decode,
  encode,
  int32,
  message,
  nested,
  repeated,
  string,
  typeNumber,
  type Field,
  type MessageOf,
  type MessageType,
} from './protobuf.ts'
import { OK } from './status.ts'

const SERVICES = ['grpc.reflection.v1.ServerReflection', 'grpc.reflection.v1alpha.ServerReflection']
export const REFLECTION_PATHS: readonly string[] = SERVICES.map(
  (name) => `/${name}/ServerReflectionInfo`,
)
const MAX_QUESTIONS = 64

const ReflectionRequest = message('ServerReflectionRequest', {
  host: string(1),
  file_by_filename: string(3),
  file_containing_symbol: string(4),
  list_services: string(7),
})
const ServiceList = message('ListServiceResponse', {
  service: repeated(nested(1, () => message('ServiceResponse', { name: string(1) }))),
})
const ReflectionResponse = message('ServerReflectionResponse', {
  valid_host: string(1),
  original_request: bytes(2),
  file_descriptor_response: nested(4, () =>
    message('FileDescriptorResponse', { file_descriptor_proto: repeated(bytes(1)) }),
  ),
  list_services_response: nested(6, () => ServiceList),
  error_response: nested(7, () =>
    message('ErrorResponse', { error_code: int32(1), error_message: string(2) }),
  ),
})

/** Answers questions until the client has none. */
export async function reflect(call: Call): Promise<void> {
  let left = MAX_QUESTIONS
  for await (const question of call.messages()) {
    if (call.isOver || left-- === 0) break
    call.send(encode(ReflectionResponse, answer(question)))
  }
  call.end(OK)
}

function answer(question: Buffer): MessageOf<typeof ReflectionResponse> {
  const asked = decode(ReflectionRequest, question)
  const base = { valid_host: asked.host ?? '', original_request: question }
  if (asked.list_services !== undefined) {
    const service = ['SpiffeWorkloadAPI', ...SERVICES].map((name) => ({ name }))
    return { ...base, list_services_response: { service } }
  }
  const file = fileOf(asked)
  if (file !== undefined)
    return { ...base, file_descriptor_response: { file_descriptor_proto: [file()] } }
  const error_response = { error_code: 5, error_message: 'no such file or symbol here' }
  return { ...base, error_response }
}

function fileOf(asked: MessageOf<typeof ReflectionRequest>): (() => Uint8Array) | undefined {
  const { file_by_filename: name, file_containing_symbol: symbol = '' } = asked
  if (name === 'workload.proto') return workloadFile
  if (name === 'google/protobuf/struct.proto') return structFile
  if (symbol.startsWith('google.protobuf.')) return structFile
  const [first = ''] = symbol.split('.')
  const messages = Object.values(METHODS).flatMap(({ input, output }) => [input.name, output.name])
  const known = ['SpiffeWorkloadAPI', 'X509SVID', 'JWTSVID', 'WITSVID', ...messages]
  return known.includes(first) ? workloadFile : undefined
}

// The part of google/protobuf/descriptor.proto that describes these files.
const FieldDescriptor = message('FieldDescriptorProto', {
  name: string(1),
  number: int32(3),
  label: int32(4),
  type: int32(5),
  type_name: string(6),
  oneof_index: int32(9),
})
type Descriptor = {
  readonly name?: string
  readonly field?: readonly MessageOf<typeof FieldDescriptor>[]
  readonly nested_type?: readonly Descriptor[]
  readonly options?: { readonly map_entry?: boolean }
  readonly oneof_decl?: readonly { readonly name?: string }[]
}
const DescriptorProto: MessageType<Readonly<Record<string, Field<unknown>>>> = message(
  'DescriptorProto',
  {
    name: string(1),
    field: repeated(nested(2, () => FieldDescriptor)),
    nested_type: repeated(nested(3, () => DescriptorProto)) as Field<unknown>,
    options: nested(7, () => message('MessageOptions', { map_entry: bool(7) })),
    oneof_decl: repeated(nested(8, () => message('OneofDescriptorProto', { name: string(1) }))),
  },
)
const FileDescriptor = message('FileDescriptorProto', {
  name: string(1),
  package: string(2),
  dependency: repeated(string(3)),
  message_type: repeated(nested(4, () => DescriptorProto)) as Field<readonly Descriptor[]>,
  enum_type: repeated(
    nested(5, () =>
      message('EnumDescriptorProto', {
        name: string(1),
        value: repeated(
          nested(2, () =>
            message('EnumValueDescriptorProto', { name: string(1), number: int32(2) }),
          ),
        ),
      }),
    ),
  ),
  service: repeated(
    nested(6, () =>
      message('ServiceDescriptorProto', {
        name: string(1),
        method: repeated(
          nested(2, () =>
            message('MethodDescriptorProto', {
              name: string(1),
              input_type: string(2),
              output_type: string(3),
              server_streaming: bool(6),
            }),
          ),
        ),
      }),
    ),
  ),
  syntax: string(12),
})

export function workloadFile(): Uint8Array {
  const types = new Map<string, MessageType<Readonly<Record<string, Field<unknown>>>>>()
  const add = (type: MessageType<Readonly<Record<string, Field<unknown>>>>): void => {
    if (types.has(type.name) || type.name.startsWith('google.')) return
    types.set(type.name, type)
    for (const field of Object.values(type.fields)) if (field.of !== undefined) add(field.of())
  }
  const methods = Object.entries(METHODS)
  for (const [, { input, output }] of methods) [input, output].forEach(add)
  return Buffer.concat(
    encode(FileDescriptor, {
      name: 'workload.proto',
      dependency: ['google/protobuf/struct.proto'],
      message_type: [...types.values()].map(describeMessage),
      service: [
        {
          name: 'SpiffeWorkloadAPI',
          method: methods.map(([name, { input, output, streams }]) => ({
            ...{ name, input_type: `.${input.name}`, output_type: `.${output.name}` },
            server_streaming: streams,
          })),
        },
      ],
      syntax: 'proto3',
    }),
  )
}

export function structFile(): Uint8Array {
  return Buffer.concat(
    encode(FileDescriptor, {
      name: 'google/protobuf/struct.proto',
      package: 'google.protobuf',
      message_type: STRUCT_MESSAGES.map(describeMessage),
      enum_type: [{ name: 'NullValue', value: [{ name: 'NULL_VALUE', number: 0 }] }],
      syntax: 'proto3',
    }),
  )
}

const LABEL_OPTIONAL = 1
const LABEL_REPEATED = 3

function describeMessage(type: MessageType<Readonly<Record<string, Field<unknown>>>>): Descriptor {
  const fields = Object.entries(type.fields)
  const oneofs = [
    ...new Set(fields.flatMap(([, { oneof }]) => (oneof === undefined ? [] : [oneof]))),
  ]
  const entryName = (name: string): string =>
    `${name.replaceAll(/(^|_)([a-z])/g, (_, __, letter: string) => letter.toUpperCase())}Entry`
  return {
    name: type.name.slice(type.name.lastIndexOf('.') + 1),
    field: fields.map(([name, field]) =>
      field.label === 'map'
        ? {
            ...{ name, number: field.number, label: LABEL_REPEATED, type: 11 },
            type_name: `.${type.name}.${entryName(name)}`,
          }
        : describeField(name, field, oneofs),
    ),
    nested_type: fields
      .filter(([, { label }]) => label === 'map')
      .map(([name, field]) => ({
        name: entryName(name),
        field: [
          describeField('key', string(1), []),
          describeField('value', { ...field, number: 2, label: 'single' }, []),
        ],
        options: { map_entry: true },
      })),
    oneof_decl: oneofs.map((name) => ({ name })),
  }
}

function describeField(
  name: string,
  field: Field<unknown>,
  oneofs: readonly string[],
): MessageOf<typeof FieldDescriptor> {
  const typeName = field.of?.().name ?? field.enum
  return {
    ...{ name, number: field.number, type: typeNumber(field) },
    label: field.label === 'repeated' ? LABEL_REPEATED : LABEL_OPTIONAL,
    ...(typeName === undefined ? {} : { type_name: `.${typeName}` }),
    ...(field.oneof === undefined ? {} : { oneof_index: oneofs.indexOf(field.oneof) }),
  }
}
