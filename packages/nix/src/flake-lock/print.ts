// A lock as Nix writes it: version 7, two spaces, members and keys in byte order, one final line feed. A text
// that Nix 2.8 or later wrote comes back byte for byte.
import type { FlakeLink, FlakeLock, FlakeNode, LockedNode } from './parse.ts'

/**
 * The canonical text of `lock`. Older versions become version 7; nodes that nothing reaches are left out,
 * as Nix does.
 */
export function printFlakeLock(lock: FlakeLock): string {
  const unreachable = new Set(lock.unreachable)
  const nodes = [lock.root, ...lock.nodes.values()]
    .filter((node) => !unreachable.has(node.key))
    .map((node): [string, string] => [node.key, printNode(node)])
  const members: [string, string][] = [
    ['nodes', printObject(nodes, '  ')],
    ['root', JSON.stringify(lock.root.key)],
    ['version', '7'],
  ]
  return `${printObject(members, '')}\n`
}

function printNode(node: FlakeNode | LockedNode): string {
  const members: [string, string][] = []
  if (!node.flake) members.push(['flake', 'false'])
  if (node.inputs.size > 0)
    members.push(['inputs', printObject(Array.from(node.inputs, printLink), INPUTS)])
  if ('locked' in node) {
    for (const name of ['locked', 'original'] as const)
      members.push([
        name,
        printObject(
          Object.entries(node[name]).map(([key, value]) => [key, JSON.stringify(value)]),
          INPUTS,
        ),
      ])
    if (node.parent !== undefined) members.push(['parent', printList(node.parent, INPUTS)])
  }
  return printObject(members, NODE)
}

const NODE = '    '
const INPUTS = '      '

function printLink([name, link]: [string, FlakeLink]): [string, string] {
  const { node, follows } = link
  return [name, follows === undefined ? JSON.stringify(node) : printList(follows, `${INPUTS}  `)]
}

function printList(items: readonly string[], indent: string): string {
  if (items.length === 0) return '[]'
  const lines = items.map((item) => `${indent}  ${JSON.stringify(item)}`)
  return `[\n${lines.join(',\n')}\n${indent}]`
}

/** Written by hand: objects of JavaScript move names such as "1" to the front. */
function printObject(members: readonly (readonly [string, string])[], indent: string): string {
  if (members.length === 0) return '{}'
  const lines = members
    .toSorted(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
    .map(([name, value]) => `${indent}  ${JSON.stringify(name)}: ${value}`)
  return `{\n${lines.join(',\n')}\n${indent}}`
}
