// The messages of the SPIFFE Workload API, and google.protobuf.Struct. proto3, without a package, so that
// the paths are `/SpiffeWorkloadAPI/METHOD`. The service must not be extended; what is ours is on agent.sock.
import {
  bool,
  bytes,
  double,
  enumeration,
  inOneof,
  mapOf,
  message,
  nested,
  repeated,
  string,
  type MessageOf,
  type MessageType,
} from './protobuf.ts'

export const X509SVIDRequest = message('X509SVIDRequest', {})
export const X509SVID = message('X509SVID', {
  spiffe_id: string(1),
  /** DER, leaf first, one after the other. */
  x509_svid: bytes(2),
  /** PKCS#8 DER, not encrypted. */
  x509_svid_key: bytes(3),
  bundle: bytes(4),
  hint: string(5),
})
export const X509SVIDResponse = message('X509SVIDResponse', {
  svids: repeated(nested(1, () => X509SVID)),
  crl: repeated(bytes(2)),
  federated_bundles: mapOf(bytes(3)),
})
export const X509BundlesRequest = message('X509BundlesRequest', {})
export const X509BundlesResponse = message('X509BundlesResponse', {
  crl: repeated(bytes(1)),
  /** By the SPIFFE ID of the trust domain. */
  bundles: mapOf(bytes(2)),
})
export const JWTSVIDRequest = message('JWTSVIDRequest', {
  audience: repeated(string(1)),
  spiffe_id: string(2),
})
export const JWTSVID = message('JWTSVID', {
  spiffe_id: string(1),
  svid: string(2),
  hint: string(3),
})
export const JWTSVIDResponse = message('JWTSVIDResponse', {
  svids: repeated(nested(1, () => JWTSVID)),
})
export const JWTBundlesRequest = message('JWTBundlesRequest', {})
export const JWTBundlesResponse = message('JWTBundlesResponse', { bundles: mapOf(bytes(1)) })
export const ValidateJWTSVIDRequest = message('ValidateJWTSVIDRequest', {
  audience: string(1),
  svid: string(2),
})
export const ValidateJWTSVIDResponse = message('ValidateJWTSVIDResponse', {
  spiffe_id: string(1),
  claims: nested(2, () => Struct),
})
export const WITSVIDRequest = message('WITSVIDRequest', { spiffe_id: string(1) })
export const WITSVID = message('WITSVID', {
  spiffe_id: string(1),
  wit_svid: string(2),
  wit_svid_key: string(3),
  hint: string(4),
})
export const WITSVIDResponse = message('WITSVIDResponse', {
  svids: repeated(nested(1, () => WITSVID)),
})
export const WITBundlesRequest = message('WITBundlesRequest', {})
export const WITBundlesResponse = message('WITBundlesResponse', { bundles: mapOf(string(1)) })

/** A JSON value, as `google.protobuf.Value`. */
export interface StructValue {
  readonly null_value?: number
  readonly number_value?: number
  readonly string_value?: string
  readonly bool_value?: boolean
  readonly struct_value?: MessageOf<typeof Struct>
  readonly list_value?: { readonly values?: readonly StructValue[] }
}
// These three hold each other; written out, because no type can be inferred from itself.
type AnyMessage = MessageType<Readonly<Record<string, never>>>
const ListValue = message('google.protobuf.ListValue', {
  values: repeated(nested(1, (): AnyMessage => Value as unknown as AnyMessage)),
})
export const Struct: MessageType<{
  readonly fields: ReturnType<typeof mapOf<StructValue>>
}> = message('google.protobuf.Struct', {
  fields: mapOf(nested(1, (): AnyMessage => Value as unknown as AnyMessage)),
})
const Value = message('google.protobuf.Value', {
  null_value: inOneof('kind', enumeration(1, 'google.protobuf.NullValue')),
  number_value: inOneof('kind', double(2)),
  string_value: inOneof('kind', string(3)),
  bool_value: inOneof('kind', bool(4)),
  struct_value: inOneof(
    'kind',
    nested(5, () => Struct),
  ),
  list_value: inOneof(
    'kind',
    nested(6, () => ListValue),
  ),
})
/** Messages of google/protobuf/struct.proto. */
export const STRUCT_MESSAGES = [Struct, Value, ListValue]

/** A JSON object as a Struct. */
export function structOf(object: Readonly<Record<string, unknown>>): MessageOf<typeof Struct> {
  const fields = Object.entries(object).map(([name, value]) => [name, valueOf(value)] as const)
  return { fields: Object.fromEntries(fields) }
}

function valueOf(json: unknown): StructValue {
  if (json === null) return { null_value: 0 }
  if (typeof json === 'number') return { number_value: json }
  if (typeof json === 'string') return { string_value: json }
  if (typeof json === 'boolean') return { bool_value: json }
  if (Array.isArray(json)) return { list_value: { values: json.map(valueOf) } }
  return { struct_value: structOf(json as Readonly<Record<string, unknown>>) }
}

interface Method {
  readonly input: MessageType<Readonly<Record<string, never>>>
  readonly output: MessageType<Readonly<Record<string, never>>>
  readonly streams: boolean
}
const method = (input: { name: string }, output: { name: string }, streams: boolean): Method => ({
  input: input as Method['input'],
  output: output as Method['output'],
  streams,
})
/** Every method of the service. */
export const METHODS = {
  FetchX509SVID: method(X509SVIDRequest, X509SVIDResponse, true),
  FetchX509Bundles: method(X509BundlesRequest, X509BundlesResponse, true),
  FetchJWTSVID: method(JWTSVIDRequest, JWTSVIDResponse, false),
  FetchJWTBundles: method(JWTBundlesRequest, JWTBundlesResponse, true),
  ValidateJWTSVID: method(ValidateJWTSVIDRequest, ValidateJWTSVIDResponse, false),
  FetchWITSVID: method(WITSVIDRequest, WITSVIDResponse, true),
  FetchWITBundles: method(WITBundlesRequest, WITBundlesResponse, true),
} as const
