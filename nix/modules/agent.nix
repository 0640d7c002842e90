# The agent on NixOS: its users, its configuration file, and the units of deploy/systemd with other paths.
# A test compares the units key by key, and reads the file with the agent's own parser.
{ config, lib, ... }:

let
  inherit (lib) mkEnableOption mkOption types;
  cfg = config.services.bagcheck.agent;
  inherit (cfg) settings;

  # Without paths of the Nix language: those would be copied to the store, which everybody reads.
  json =
    types.nullOr (types.oneOf [ types.bool types.int types.float types.str (types.listOf json) (types.attrsOf json) ])
    // { description = "JSON value"; };
  file = types.strMatching "/[^\n]+" // { description = "absolute path, as a string"; };
  userName = types.strMatching "[a-z_][a-z0-9_-]{0,31}" // { description = "user name"; };
  unit = types.strMatching "[A-Za-z0-9:_.@][A-Za-z0-9:_.@-]{0,199}" // { description = "unit name"; };
  record = options: types.submodule { inherit options; };
  required = type: description: mkOption { inherit type description; };
  optional = type: default: description: mkOption { inherit type default description; };

  action = record {
    id = required (types.strMatching "[a-z0-9][a-z0-9-]{0,63}") "Its name, unique.";
    do = required (types.enum [ "restart" "rollback" "webhook" ]) "What follows the denial.";
    on = {
      units = required (types.listOf unit) "Whose denials.";
      codes = optional (types.nullOr (types.listOf (types.strMatching "[A-Z_]+"))) null "Codes among the reasons; null: every code.";
    };
    afterSeconds = optional (types.ints.between 0 86400) 0 "Only if the unit has had nothing by then.";
    minIntervalSeconds = optional (types.nullOr (types.ints.between 10 86400)) null "Between two of the same for one unit; null: 300, for a rollback 3600.";
    profile = optional (types.nullOr file) null "Of a rollback: the profile, such as /nix/var/nix/profiles/system.";
    hostClass = optional (types.nullOr types.str) null "Of a rollback: `profile` is the system of hosts of this class.";
    url = optional (types.nullOr types.str) null "Of a webhook. It is in the store, which everybody reads.";
    ca = optional (types.nullOr types.path) null "PEM file of the authority behind `url`.";
  };

  id = types.ints.between 0 4294967294;
  tokenFile = record {
    unit = required unit "A service of systemd, or a unit of `bagcheck exec`.";
    audience = required types.str "Its profile must be a bearer one.";
    path = required file "The file. Its directory must exist and be closed to others.";
    mode = optional (types.enum [ "0400" "0440" "0600" "0640" ]) "0440" "Mode of the file.";
    owner = optional (types.nullOr (record { uid = required id "User."; gid = required id "Group."; })) null "Null: the directory's rules.";
    profile = optional (types.nullOr types.str) null "Null: the policy's.";
    ttlSeconds = optional (types.nullOr (types.ints.between 1 86400)) null "Null: the policy's.";
  };

  settingsType = types.submodule {
    freeformType = types.attrsOf json;
    options = {
      installation = required (types.strMatching "[a-z0-9][a-z0-9.-]{0,63}") "Name of this Bagcheck, as in the trust root.";
      broker = required (types.strMatching "(https?://[^/?#[:space:]]+|unix:/[^[:space:]]+)") "`https://HOST[:PORT]`, `http://` on loopback only, or `unix:/path`.";
      issuer = optional (types.nullOr (types.strMatching "https?://[^[:space:]]{1,500}")) null "The broker's `issuer`, where that is not `broker`.";
      brokerCa = optional (types.nullOr types.path) null "PEM file of the authority that signed the broker's certificate; null: the system's.";
      trustRootPin = required (types.strMatching "[0-9a-f]{64}" // { description = "digest as `bagcheck policy pin root.json` prints it"; }) "Digest of version 1 of the trust root.";
      user = optional userName "bagcheck-agent" "Whom the front runs as.";
      measurer.user = optional userName "bagcheck-measurer" "Whom the measurer runs as, with three capabilities.";
      socket = optional file "/run/bagcheck/agent.sock" "Where workloads ask.";
      spiffeSocket = optional (types.nullOr file) "/run/bagcheck/spiffe.sock" "Where SPIFFE clients ask; null: nowhere.";
      unitsDir = optional file "/run/bagcheck-units" "Where `bagcheck exec` leaves its records.";
      nix.daemonSocket = optional file "/nix/var/nix/daemon-socket/socket" "The Nix daemon's socket.";
      nix.database = optional file "/nix/var/nix/db/db.sqlite" "Used where no daemon answers.";
      storeCheckIntervalSeconds = optional (types.numbers.between 0 60) 1 "How long one check of a closure's content serves several requests.";
      observeIntervalSeconds = optional (types.numbers.between 0 86400) 300 "Between two looks at observed units; 0 observes none.";
      actions = optional (types.listOf action) [ ] "What follows a denial.";
      actionsSocket = optional file "/run/bagcheck-actions/actions.sock" "Where the process that restarts services and rolls profiles back listens.";
      tokenFiles = optional (types.listOf tokenFile) [ ] "Tokens for programs that know nothing of sockets.";
    };
  };

  # The agent takes what is absent, and not null, for unsaid.
  said = lib.filterAttrs (_: value: value != null);
  configuration = builtins.toJSON (
    said settings
    // {
      inherit (settings) spiffeSocket;
      measurer = { inherit (settings.measurer) user; socket = "/run/bagcheck-measurer/measurer.sock"; };
      actions = map (entry: said entry // { on = said entry.on; }) settings.actions;
      tokenFiles = map said settings.tokenFiles;
    }
    // said { joinToken = cfg.joinTokenFile; }
  );
  configFile = "/etc/bagcheck/agent.json";

  byRoot = builtins.any (entry: entry.do != "webhook") settings.actions;
  inRuntimeDirectory = path: path == null || builtins.match "/run/bagcheck/[^/]+" path != null;
  assertions = [
    {
      assertion = !(settings ? joinToken);
      message = "services.bagcheck.agent.settings.joinToken: say services.bagcheck.agent.joinTokenFile instead.";
    }
    {
      assertion = !(settings ? stateDir);
      message = "services.bagcheck.agent.settings.stateDir: the units keep state in /var/lib/bagcheck-agent; it cannot be elsewhere.";
    }
    {
      assertion = builtins.attrNames settings.measurer == [ "user" ];
      message = "services.bagcheck.agent.settings: measurer.socket and measurer.stateDir are where the units have them; only measurer.user can be chosen.";
    }
    {
      assertion = cfg.joinTokenFile == null || !(lib.hasPrefix "${builtins.storeDir}/" cfg.joinTokenFile);
      message = "services.bagcheck.agent.joinTokenFile is in the Nix store, where every user could enrol with it. Bring it to the host as a file that only ${settings.user} can read.";
    }
    {
      assertion = builtins.match "http://.*" settings.broker == null || builtins.match "http://(localhost|\\[::1]|127(\\.[0-9]+){3})(:[0-9]+)?" settings.broker != null;
      message = "services.bagcheck.agent.settings.broker: ${settings.broker} would carry tokens without TLS. Use https://, or http:// on loopback.";
    }
    {
      assertion = !(lib.hasPrefix "unix:" settings.broker) || settings.issuer != null;
      message = "services.bagcheck.agent.settings.issuer is needed: ${settings.broker} does not say what the broker calls itself.";
    }
    {
      assertion = settings.user != settings.measurer.user;
      message = "services.bagcheck.agent.settings: user and measurer.user are both ${settings.user}. The front talks to everybody and must not be able to signal or trace the measurer.";
    }
    {
      assertion = settings.user != "root" && settings.measurer.user != "root";
      message = "services.bagcheck.agent.settings: neither user nor measurer.user may be root, who owns files that no capability is needed to write.";
    }
    {
      assertion = inRuntimeDirectory settings.socket && inRuntimeDirectory settings.spiffeSocket;
      message = "services.bagcheck.agent.settings: socket and spiffeSocket must lie in /run/bagcheck, the one directory that the front may write to and every workload may enter.";
    }
  ];

  confined = {
    NoNewPrivileges = true;
    SystemCallErrorNumber = "EPERM";
    SystemCallArchitectures = "native";
    ProtectSystem = "strict";
    PrivateTmp = true;
    PrivateDevices = true;
    ProtectControlGroups = true;
    ProtectKernelTunables = true;
    ProtectKernelModules = true;
    ProtectKernelLogs = true;
    ProtectHostname = true;
    RestrictNamespaces = true;
    RestrictRealtime = true;
    RestrictSUIDSGID = true;
    LockPersonality = true;
    RemoveIPC = true;
    UMask = "0077";
    MemoryMax = "1G";
    TasksMax = 64;
  };
  shared = confined // {
    Restart = "always";
    StateDirectoryMode = "0700";
    RuntimeDirectoryMode = "0755";
  };
  # The last two are for opening the process connector; the measurer gives them up before it measures.
  measurerCapabilities = "CAP_DAC_READ_SEARCH CAP_SYS_PTRACE CAP_CHECKPOINT_RESTORE CAP_NET_ADMIN CAP_SETPCAP";
  restartTriggers = [ (builtins.hashString "sha256" (builtins.unsafeDiscardStringContext configuration)) ];
  # Where `busctl` and `systemctl` are.
  path = [ config.systemd.package ];
in
{
  options.services.bagcheck.agent = {
    enable = mkEnableOption "the Bagcheck agent, which obtains tokens for live units whose closure is approved";
    package = required types.package "What holds `bin/bagcheck-agent` and `bin/bagcheck-measurer`, and for rollbacks `bagcheck` beside the agent's program.";
    joinTokenFile = optional (types.nullOr file) null "The join token's file on the host, readable by `settings.user`. Used once.";
    settings = required settingsType "The agent's configuration file, key by key as docs/operations.md has it.";
  };

  config = lib.mkIf cfg.enable {
    inherit assertions;

    environment.etc."bagcheck/agent.json".text = configuration;

    users.users = lib.genAttrs [ settings.user settings.measurer.user ] (name: {
      isSystemUser = true;
      group = name;
    });
    users.groups = lib.genAttrs [ settings.user settings.measurer.user ] (_: { });

    systemd.services.bagcheck-agent = {
      description = "Bagcheck agent";
      wants = [ "network-online.target" "bagcheck-measurer.service" ];
      after = [ "network-online.target" "nix-daemon.socket" "bagcheck-measurer.service" ];
      wantedBy = [ "multi-user.target" ];
      inherit restartTriggers;
      serviceConfig = shared // {
        ExecStart = "${cfg.package}/bin/bagcheck-agent --config ${configFile}";
        User = settings.user;
        RestartSec = 2;
        StateDirectory = "bagcheck-agent";
        RuntimeDirectory = "bagcheck";
        AmbientCapabilities = "";
        CapabilityBoundingSet = "";
        RestrictAddressFamilies = "AF_UNIX AF_INET AF_INET6";
        SystemCallFilter = [ "@system-service" "~@privileged @resources" ];
        ReadWritePaths = "-/run/bagcheck-tokens";
        ProtectHome = true;
        ProtectClock = true;
      };
    };
    # As deploy/tmpfiles.d has it.
    systemd.tmpfiles.rules = [ "d /run/bagcheck-tokens 0711 ${settings.user} root" ];

    systemd.services.bagcheck-measurer = {
      description = "Bagcheck measurer";
      before = [ "bagcheck-agent.service" ];
      wantedBy = [ "multi-user.target" ];
      inherit path restartTriggers;
      serviceConfig = shared // {
        ExecStart = "${cfg.package}/bin/bagcheck-measurer --config ${configFile}";
        User = settings.measurer.user;
        RestartSec = 1;
        StateDirectory = "bagcheck-agent-measurer";
        RuntimeDirectory = "bagcheck-measurer";
        AmbientCapabilities = measurerCapabilities;
        CapabilityBoundingSet = measurerCapabilities;
        RestrictAddressFamilies = "AF_UNIX AF_NETLINK";
        IPAddressDeny = "any";
        SystemCallFilter = [ "@system-service" "adjtimex kcmp" "~@resources" ];
        ProtectHome = "read-only";
      };
    };

    # The part that restarts services and rolls profiles back is root; it is there where an action wants it.
    systemd.sockets = lib.mkIf byRoot {
      bagcheck-actions = {
        description = "Bagcheck actions";
        wantedBy = [ "sockets.target" ];
        socketConfig = {
          ListenStream = settings.actionsSocket;
          SocketUser = settings.user;
          SocketMode = "0600";
          RemoveOnStop = true;
        };
      };
    };
    systemd.services.bagcheck-actions = lib.mkIf byRoot {
      description = "Bagcheck actions";
      requires = [ "bagcheck-actions.socket" ];
      inherit path restartTriggers;
      serviceConfig = confined // {
        ExecStart = "${cfg.package}/bin/bagcheck-agent --actions --config ${configFile}";
        StateDirectory = "bagcheck-actions";
        StateDirectoryMode = "0700";
        ReadWritePaths = "-/nix/var/nix/profiles";
        # A rollback that a policy's file of somebody's own lets run out of memory ends alone.
        OOMPolicy = "continue";
        AmbientCapabilities = "";
        CapabilityBoundingSet = "";
        PrivateNetwork = true;
        RestrictAddressFamilies = "AF_UNIX";
        IPAddressDeny = "any";
        SystemCallFilter = [ "@system-service" "~@privileged @resources" ];
        ProtectHome = true;
        ProtectClock = true;
      };
    };
  };
}
