export * from './evidence.ts'
export * from './wire.ts'
