# A program of this machine, copied with the libraries that it loads and relinked inside the build, so
# that the process maps files of the store and nothing else. No nixpkgs: the tools are this machine's
# too, brought in as content-addressed sources. A file is { name, path }: what it shall be called, and
# where it lies, links resolved.
#   name, version  of the output
#   program        the dynamically linked program
#   loader         its ELF interpreter
#   libraries      the libraries that it needs, all of them
#   tools          { busybox, patchelf, loader, libraries }
#   data           optional directory, copied to lib/
#   settings       optional directory, copied to conf/
{ name, version, program, loader, libraries, tools, data ? null, settings ? null }:
let
  copy = folder: file: "cp ${builtins.path {
    path = /. + file.path;
    name = builtins.replaceStrings [ "+" ] [ "x" ] file.name;
  }} ${folder}/${file.name}";
  source = kind: path: builtins.path { path = /. + path; name = "${name}-${kind}"; };
  lines = builtins.concatStringsSep "\n";
in
derivation {
  name = "${name}-${version}";
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [ "-e" "-c" ''
    for tool in mkdir cp chmod; do
      eval "$tool() { ${tools.busybox} $tool \"\$@\"; }"
    done

    mkdir -p tools
    ${lines (map (copy "tools") ([ tools.patchelf tools.loader ] ++ tools.libraries))}
    chmod -R 755 tools
    patchelf() {
      tools/${tools.loader.name} --library-path tools tools/${tools.patchelf.name} "$@"
    }

    mkdir -p $out/bin $out/lib
    ${copy "$out/bin" program}
    ${lines (map (copy "$out/lib") ([ loader ] ++ libraries))}
    chmod -R u+w,a+x $out/bin $out/lib
    # RPATH and not RUNPATH: it also holds for the libraries that the libraries need.
    patchelf --set-interpreter $out/lib/${loader.name} --force-rpath --set-rpath $out/lib \
      $out/bin/${program.name}
    ${if data == null then "" else "cp -RL ${source "data" data}/. $out/lib/"}
    ${if settings == null then "" else "cp -RL ${source "settings" settings} $out/conf"}
  '' ];
}
