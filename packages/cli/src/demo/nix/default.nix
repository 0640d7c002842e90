# The bags of the demo. `config` is a file that names programs, loaders, libraries and tools of this
# machine; the demo writes it, see build.ts.
{ config }:
let
  inherit (builtins.fromJSON (builtins.readFile config)) node perl;
  tools = import ./tools.nix (builtins.fromJSON (builtins.readFile config)).tools;
  relink = arguments: import ./relink.nix (arguments // { inherit tools; });
  service = arguments: import ./service.nix (arguments // { inherit tools; });
  prices = rounding: builtins.toJSON { currency = "EUR"; inherit rounding; };
  demo-node = relink (node // { name = "demo-node"; });
  demo-perl = relink (perl // { name = "demo-perl"; });
  orders = arguments: service ({
    runtime = demo-node;
    program = "node";
    script = ./orders.mjs;
    scriptName = "orders.mjs";
    data = prices "down";
  } // arguments);
in
{
  orders = orders { name = "orders-1.0"; };
  # The hotfix: the same program, one line of data mended.
  hotfix = orders { name = "orders-1.0.1"; data = prices "half-even"; };
  # The next version, with a change that nobody has approved.
  next = orders {
    name = "orders-1.1";
    script = builtins.toFile "orders.mjs" (builtins.replaceStrings
      [ "\nconst tell" ] [ "\nprices.discount = 0.9\nconst tell" ] (builtins.readFile ./orders.mjs));
  };
  reports = service {
    name = "reports-1.0";
    runtime = demo-perl;
    program = "perl";
    script = ./reports.pl;
    scriptName = "reports.pl";
    data = prices "down";
  };
}
