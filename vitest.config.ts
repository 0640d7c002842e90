import type { ViteUserConfig } from 'vitest/config'

// Three projects. `unit` shares one process per worker (isolate: false is 10× faster), so test files
// must keep no mutable module state. `system` starts real Nix, PostgreSQL, processes and namespaces,
// one file at a time. `host` is the same with the process ids of the host, and runs before the others.
const conditions = ['@bagcheck/source']
const shared = {
  resolve: { conditions },
  ssr: { resolve: { conditions } },
}
const execArgv = ['-C', '@bagcheck/source']

const config: ViteUserConfig = {
  ...shared,
  test: {
    reporters: ['default', './scripts/totals-reporter.ts'],
    projects: [
      {
        ...shared,
        test: {
          name: 'unit',
          include: ['packages/*/test/**/*.test.ts', 'test/**/*.test.ts'],
          exclude: ['**/*.system.test.ts', '**/*.host.test.ts'],
          isolate: false,
          execArgv,
          testTimeout: 30_000,
        },
      },
      {
        ...shared,
        test: {
          name: 'system',
          include: ['packages/*/test/**/*.system.test.ts', 'test/**/*.system.test.ts'],
          pool: 'forks',
          fileParallelism: false,
          execArgv,
          testTimeout: 120_000,
          hookTimeout: 180_000,
        },
      },
      {
        ...shared,
        test: {
          name: 'host',
          include: ['packages/*/test/**/*.host.test.ts'],
          pool: 'forks',
          fileParallelism: false,
          execArgv,
          testTimeout: 120_000,
          hookTimeout: 180_000,
        },
      },
    ],
  },
}

export default config
