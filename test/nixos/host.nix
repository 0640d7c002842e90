# What the module finds on NixOS, as far as it writes to it, and what the test reads back. Not NixOS itself.
{ lib, system }:

let
  inherit (lib) mkOption types;
  set = mkOption { type = types.attrsOf types.anything; default = { }; };
  package = name: derivation { inherit name; system = "x86_64-linux"; builder = "/bin/sh"; };
  host = {
    options = {
      assertions = mkOption { type = types.listOf types.anything; default = [ ]; };
      environment.etc = set;
      systemd.package = mkOption { type = types.package; default = package "systemd"; };
      systemd.services = set;
      systemd.sockets = set;
      systemd.tmpfiles.rules = mkOption { type = types.listOf types.str; default = [ ]; };
      users.users = set;
      users.groups = set;
    };
  };
  # `package` stands for the one that a system would name.
  named = { config.services.bagcheck.agent.package = package "bagcheck"; };
  inherit (lib.evalModules { modules = [ ../../nix/modules/agent.nix host named system ]; }) config;
in
{
  refused = map ({ message, ... }: message) (builtins.filter ({ assertion, ... }: !assertion) config.assertions);
  package = "${config.services.bagcheck.agent.package}";
  systemd = "${config.systemd.package}";
  inherit (config.environment) etc;
  inherit (config.systemd) services sockets;
  tmpfiles = config.systemd.tmpfiles.rules;
  inherit (config.users) users groups;
}
