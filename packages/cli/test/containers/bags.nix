# Services that ask for a token each time they are told to: what runs in the containers of the tests.
# `box` is a container's config.json, in which @perl@ and @script@ stand for what the asker is started with.
{ config, box ? "{}" }:
let
  inherit (builtins.fromJSON (builtins.readFile config)) perl;
  machine = (builtins.fromJSON (builtins.readFile config)).tools;
  demo = ../../src/demo/nix;
  tools = machine // {
    busybox = "${builtins.path {
      path = /. + dirOf machine.busybox.path;
      name = "busybox";
      filter = file: type: file == machine.busybox.path;
    }}/${baseNameOf machine.busybox.path}";
  };
  runtime = import (demo + "/relink.nix") (perl // { name = "asking-perl"; inherit tools; });
  asker = import (demo + "/service.nix") {
    inherit runtime tools;
    name = "asker-1.0";
    program = "perl";
    script = ./ask.pl;
    scriptName = "ask.pl";
    data = "{}";
  };
in
{
  # The root that holds service and launch contract.
  boxed = derivation {
    name = "asker-box-1.0";
    system = builtins.currentSystem;
    builder = "/bin/sh";
    configuration = builtins.replaceStrings
      [ "@perl@" "@script@" ] [ "${runtime}/bin/perl" "${asker}/lib/ask.pl" ] box;
    passAsFile = [ "configuration" ];
    args = [ "-e" "-c" ''
      ${tools.busybox} mkdir $out
      ${tools.busybox} ln -s ${asker}/bin ${asker}/lib ${asker}/share $out/
      ${tools.busybox} cp $configurationPath $out/config.json
    '' ];
  };
}
