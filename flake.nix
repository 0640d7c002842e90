{
  description = "No attested, policy-approved Nix closure, no token";

  # No inputs: the module takes `lib` from the system that imports it.
  outputs =
    { self }:
    {
      nixosModules.agent.imports = [ ./nix/modules/agent.nix ];
      nixosModules.default = self.nixosModules.agent;
    };
}
