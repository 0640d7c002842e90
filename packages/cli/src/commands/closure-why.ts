import {
  findReferenceHolders,
  referenceChains,
  shortestChain,
  storePathBase,
  storePathOf,
  type HoldersOfReference,
  type ReferenceChain,
  type StorePath,
} from '@bagcheck/nix'
import { findRoot, readBag } from '../closure/bag.ts'
import { printable } from '../closure/printable.ts'
import { SOURCE_OPTIONS } from '../closure/source.ts'
import { command } from '../command.ts'
import { CliError, EXIT } from '../error.ts'

const DEFAULT_CHAINS = 100

/** An edge of a chain, and the files that make it one. */
interface Link extends Partial<HoldersOfReference> {
  readonly from: StorePath
  readonly to: StorePath
}

export const closureWhy = command({
  summary: 'Show how a closure comes to hold a path: the references that lead to it.',
  positionals: 'ROOT PATH',
  description: [
    'ROOT is a store path, a link to one, or a file with a manifest. PATH is a store path, a link to one, or ' +
      'the name of one in the closure, with or without its hash, if only one has it; a file in a store path ' +
      'stands for that.',
    'The exit code is 1 if ROOT does not reach PATH.',
  ],
  options: {
    all: { type: 'boolean', help: 'all chains, shortest first, not only the shortest' },
    limit: {
      type: 'string',
      value: 'N',
      default: String(DEFAULT_CHAINS),
      help: 'with --all: most chains that are shown',
    },
    files: {
      type: 'boolean',
      help: 'also name the files that hold each reference, found by reading the store',
    },
    ...SOURCE_OPTIONS,
  },
  examples: ['bagcheck closure why /run/current-system openssl-1.1.1w --files'],
  run: async ({ signal, result, progress }, values, [root = '', wanted = '']) => {
    const maxChains = parseLimit(values.limit)
    progress('reading the closure')
    const manifest = await readBag(root, values, signal)
    const facts = {
      schema: 'bagcheck.closure-why/v1',
      root: manifest.root,
      closureDigest: manifest.digest,
    }
    const paths = manifest.entries.map((entry) => entry.path)
    const path = await findWanted(wanted, paths)
    if (path === undefined) {
      result(
        { ...facts, path: wanted, reached: false, complete: true, chains: [] },
        `${manifest.root} does not reach ${wanted}`,
      )
      return EXIT.refused
    }
    // A path of the closure is reached from its root: that is what makes it one.
    const { chains, complete } = values.all
      ? referenceChains(manifest, path, { maxChains })
      : { chains: [shortestChain(manifest, path) ?? []], complete: true }

    const wantedLinks = new Map<StorePath, Set<StorePath>>()
    for (const chain of chains)
      for (const { from, to } of linksOf(chain))
        wantedLinks.set(from, (wantedLinks.get(from) ?? new Set()).add(to))
    const holders = new Map<string, HoldersOfReference>()
    if (values.files)
      for (const [from, targets] of wantedLinks) {
        progress(`reading ${from}`)
        const found = await findReferenceHolders(from, [...targets], { signal })
        for (const [to, held] of found) holders.set(`${from} ${to}`, held)
      }
    const described = chains.map((chain) =>
      linksOf(chain).map((link) => ({ ...link, ...holders.get(`${link.from} ${link.to}`) })),
    )
    result(
      {
        ...facts,
        path,
        reached: true,
        complete,
        chains: chains.map((chain, index) => ({ paths: chain, links: described[index] })),
      },
      [
        ...described.flatMap((links) => [manifest.root, ...chainLines(links), '']).slice(0, -1),
        ...(complete ? [] : ['', `… and more than these ${chains.length} chains (--limit)`]),
      ],
    )
    return EXIT.ok
  },
})

function parseLimit(text: string): number {
  const limit = Number(text)
  if (Number.isSafeInteger(limit) && limit > 0 && limit <= 100_000) return limit
  throw new CliError('USAGE', `--limit is a number from 1 to 100000, not "${text}"`)
}

/** The path of the closure that the user means. */
async function findWanted(
  text: string,
  paths: readonly StorePath[],
): Promise<StorePath | undefined> {
  const path = storePathOf(text) ?? (text.includes('/') ? await findRoot(text) : undefined) ?? text
  const matching = paths.filter((one) => {
    const base = storePathBase(one)
    return one === path || base === path || base.slice(33) === path
  })
  if (matching.length > 1)
    throw new CliError('USAGE', `${matching.length} paths have this name: ${matching.join(' ')}`)
  return matching[0]
}

function linksOf(chain: ReferenceChain): Link[] {
  return chain.slice(1).map((to, index) => ({ from: chain[index] ?? to, to }))
}

function chainLines(links: readonly Link[]): string[] {
  return links.flatMap(({ to, holders, complete }, depth) => {
    const indent = '    '.repeat(depth)
    const files = (holders ?? []).map(
      ({ file, in: where, offset }) =>
        `${indent}│   ${file === '' ? '.' : printable(file)}: ${where} at ${offset}`,
    )
    const none = holders?.length === 0 ? [`${indent}│   in no file as plain text`] : []
    const more = complete === false ? [`${indent}│   … and more files`] : []
    return [...files, ...none, ...more, `${indent}└── ${to}`]
  })
}
