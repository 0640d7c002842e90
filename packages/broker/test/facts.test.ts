// Evidence and what evaluation reads of it are two types, because policy does not know the wire. The compiler sees
// that nothing is read that nobody states; here it is asked that nothing is stated that no rule could read. The
// members named below are for people.
import type { Evidence } from '@bagcheck/api'
import type { Facts, HostFacts } from '@bagcheck/policy'
import { expectTypeOf, test } from 'vitest'

type Stated = Evidence['facts']
type Unread<S, K> = Exclude<keyof NonNullable<S>, keyof NonNullable<K>>
type Process<F extends Pick<Facts, 'processes'>> = F['processes'][number]

test('evaluation knows every fact that evidence states', () => {
  expectTypeOf<Unread<Stated, Facts>>().toBeNever()
  expectTypeOf<Unread<Process<Stated>, Process<Facts>>>().toBeNever()
  expectTypeOf<Unread<Process<Stated>['inContainer'], Process<Facts>['inContainer']>>().toBeNever()
  expectTypeOf<Unread<Stated['roots'][number], Facts['roots'][number]>>().toBeNever()
  expectTypeOf<Unread<Stated['unit'], Facts['unit']>>().toBeNever()
  expectTypeOf<Unread<Stated['unit']['contract'], Facts['unit']['contract']>>().toBeNever()
  expectTypeOf<Unread<Stated['unit']['container'], Facts['unit']['container']>>().toBeNever()
  expectTypeOf<Unread<Stated['unit']['service'], Facts['unit']['service']>>().toBeNever()
})

test('evaluation knows every fact about the host but those for people', () => {
  expectTypeOf<Unread<Evidence['host'], HostFacts>>().toEqualTypeOf<
    'unitEvents' | 'bootId' | 'kernel'
  >()
  expectTypeOf<Unread<Evidence['host']['sysctls'], HostFacts['sysctls']>>().toBeNever()
})
