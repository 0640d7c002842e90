# A service: its program text and data beside a link to the runtime, so that one root names the whole
# bag. Script and data are arguments, which is all that tells the releases of the demo apart.
{ name, runtime, program, script, scriptName, data, tools }:
derivation {
  inherit name data;
  passAsFile = [ "data" ];
  system = builtins.currentSystem;
  builder = "/bin/sh";
  args = [ "-e" "-c" ''
    busybox=${tools.busybox}
    $busybox mkdir -p $out/bin $out/lib $out/share
    $busybox ln -s ${runtime}/bin/${program} $out/bin/${program}
    $busybox cp ${script} $out/lib/${scriptName}
    $busybox cp $dataPath $out/share/prices.json
  '' ];
}
