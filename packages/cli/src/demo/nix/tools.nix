# The tools of this machine with which derivations are built, as sources in the store.
machine: machine // {
  # In a directory, because busybox goes by the name that it is called with.
  busybox = "${builtins.path {
    path = /. + dirOf machine.busybox.path;
    name = "busybox";
    filter = file: type: file == machine.busybox.path;
  }}/${baseNameOf machine.busybox.path}";
}
