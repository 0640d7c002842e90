# The bags of the demo. `config` is a file that names programs, loaders, libraries and tools of this
# machine; the demo writes it, see build.ts.
{ config }:
let
  inherit (builtins.fromJSON (builtins.readFile config)) node perl;
  machine = (builtins.fromJSON (builtins.readFile config)).tools;
  tools = machine // {
    # In a directory, because busybox goes by the name that it is called with.
    busybox = "${builtins.path {
      path = /. + dirOf machine.busybox.path;
      name = "busybox";
      filter = file: type: file == machine.busybox.path;
    }}/${baseNameOf machine.busybox.path}";
  };
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
