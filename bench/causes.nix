# A system of about 1,000 derivations, shaped as real ones are: packages with fetched sources in layers that
# use a few of the layers below, several outputs, scripts of a few kB, many small derivations of one name, and a
# root that names most of it. Nothing is built. `changed` alters three derivations by themselves.
{ changed ? false }:
let
  packages = 430;
  units = 140;
  range = n: builtins.genList (i: i) n;
  toBase = "x86_64-linux";
  drv = args: derivation ({ system = toBase; builder = "/bin/sh"; } // args);
  script = i: builtins.concatStringsSep "\n" (map (n: "step ${toString n} of package ${toString i}: configure, build, install, check") (range 40));
  all = builtins.foldl' (before: i: before ++ [ (package before i) ]) [ ] (range packages);
  package = before: i:
    let
      version = "1.${toString i}" + (if changed && i == 7 then ".1" else "");
      name = "package${toString i}-${version}";
      src = drv {
        name = "source-${toString i}.tar.gz";
        outputHashMode = "flat";
        outputHashAlgo = "sha256";
        outputHash = builtins.hashString "sha256" "source ${toString i}";
        url = "https://example.org/${if changed && i == 11 then "mirror/" else ""}package${toString i}.tar.gz";
      };
      # Five of those before, some far down and some near.
      inputs = if i == 0 then [ ] else map (n: builtins.elemAt before (n - (n / i) * i)) [ (i * 7 / 11) (i * 3 / 7) (i - 1) (i * 5 + 3) (i / 2) ];
    in
    drv ({
      inherit name version src;
      outputs = if i - (i / 3) * 3 == 0 then [ "out" "dev" ] else [ "out" ];
      buildInputs = map (one: one.dev or one.out) inputs;
      propagatedBuildInputs = inputs;
      buildCommand = script i + builtins.concatStringsSep " " (map (one: "-L${one.out}/lib") inputs);
      args = [ "-e" "-c" "echo $buildCommand" ];
    } // (if changed && i == 60 then { patches = [ (builtins.toFile "fix.patch" "+ fixed\n") ]; } else { }));
  unit = i: drv {
    name = "unit-script";
    text = "exec ${builtins.elemAt all (i * 3)}/bin/service --number ${toString i}";
  };
in
drv {
  name = "system";
  units = map unit (range units);
  path = all;
}
