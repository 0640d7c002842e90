# Bags of programs that speak SPIFFE. `config` names programs and tools of this machine, as for the demo.
{ config }:
let
  demo = ../../src/demo/nix;
  inputs = builtins.fromJSON (builtins.readFile config);
  tools = inputs.tools // {
    busybox = "${builtins.path {
      path = /. + dirOf inputs.tools.busybox.path;
      name = "busybox";
      filter = file: type: file == inputs.tools.busybox.path;
    }}/${baseNameOf inputs.tools.busybox.path}";
  };
  relink = arguments: import (demo + "/relink.nix") (arguments // { inherit tools; });
  build = name: script: environment: derivation ({
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-e" "-c" ''
      for tool in mkdir cp chmod ln; do
        eval "$tool() { ${tools.busybox} $tool \"\$@\"; }"
      done
      mkdir -p $out/bin $out/lib $out/share
      ${script}
    '' ];
  } // environment);
  source = name: path: builtins.path { inherit name; path = /. + path; };
in
{
  # A service on Node: a folder with its program and the packages that it needs.
  node = { name, folder, script ? "workload.mjs" }: build name ''
    ln -s ${relink (inputs.node // { name = "runtime-node"; })}/bin/node $out/bin/node
    cp -R ${source "library" folder}/. $out/lib/
    printf '{"note":"first"}' > $out/share/note.json
  '' { };
  # A program that is one file and needs no other.
  static = { name, program }: build name ''
    cp ${source "program" program} $out/bin/${name}
    chmod 755 $out/bin/${name}
    printf '{"note":"first"}' > $out/share/note.json
  '' { };
  # A JVM, and a folder of programs for it.
  java = { linkage, folder }: build "java-program" ''
    ln -s ${relink ((builtins.fromJSON linkage) // { name = "runtime-java"; version = "1.0"; })}/bin/java $out/bin/java
    cp -R ${source "library" folder}/. $out/lib/
    printf '{"note":"first"}' > $out/share/note.json
  '' { };
  # A Python with its modules and a program in one folder.
  python = { linkage }: relink ((builtins.fromJSON linkage) // { name = "python-program"; version = "1.0"; });
}
