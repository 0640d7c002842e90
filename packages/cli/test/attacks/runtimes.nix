# Runtimes of this machine, relinked so that they map files of the store and nothing else, and services on
# them. `config` is a file that names programs, loaders, libraries and tools; see services.ts.
{ config }:
let
  nix = ../../src/demo/nix;
  inputs = builtins.fromJSON (builtins.readFile config);
  tools = import (nix + "/tools.nix") inputs.tools;
in
builtins.listToAttrs (map
  (service: {
    inherit (service) name;
    value = import (nix + "/service.nix") {
      inherit tools;
      name = "${service.name}-1.0";
      runtime = import (nix + "/relink.nix") (service.runtime // { inherit tools; });
      program = service.runtime.program.name;
      script = /. + service.script.path;
      scriptName = service.script.name;
      data = "{}";
    };
  })
  inputs.services)
