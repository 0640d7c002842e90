import { command } from '../command.ts'
import { compileFile } from '../policy/source.ts'

export const policyCheck = command({
  summary: 'Check a policy file; errors name file, line and what was expected.',
  positionals: 'FILE',
  examples: ['bagcheck policy check policy.yaml'],
  run: async ({ result, warn }, _values, [file = '']) => {
    const { policy, warnings } = await compileFile(file, warn)
    const roles = [...policy.roles.values()]
    const roots = roles.reduce((sum, role) => sum + role.roots.length, 0)
    result(
      { ok: true, installation: policy.installation, version: policy.version, roots, warnings },
      `${file}: version ${policy.version} for ${policy.installation}: ${count(roles.length, 'role')}, ` +
        `${count(roots, 'approved root')}, until ${policy.expires}`,
    )
  },
})

const count = (number: number, what: string): string =>
  `${number} ${what}${number === 1 ? '' : 's'}`
