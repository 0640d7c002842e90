# Derivations with every kind of output and every corner of their text. Nothing is built; nixpkgs is not used.
# `experimental` needs the features ca-derivations and impure-derivations, `dynamic` also dynamic-derivations.
let
  drv = args: derivation ({ system = "x86_64-linux"; builder = "/bin/sh"; } // args);
  text = builtins.toFile "text" "some text\n";
  referring = builtins.toFile "referring" "see ${text}\n";
  hash = type: builtins.hashString type "content";
  fixed = name: mode: type: drv {
    inherit name;
    outputHashMode = mode;
    outputHashAlgo = type;
    outputHash = hash type;
  };
  # 64 derivations, each of which uses all before it through two others.
  chain = builtins.foldl' (before: n: before ++ [ (drv {
    name = "link-${toString n}";
    inherit n;
    inputs = if n < 2 then before else [ (builtins.elemAt before (n - 1)) (builtins.elemAt before (n - 2)) ];
  }) ]) [ ] (builtins.genList (n: n) 64);
in
rec {
  plain = {
    single = drv { name = "single"; };
    multiple = drv { name = "multiple"; outputs = [ "out" "dev" "bin" "a+b_c" ]; };
    noOut = drv { name = "no-out"; outputs = [ "lib" "dev" ]; };
    uses = drv {
      name = "uses";
      args = [ "-c" "\${plain.multiple.dev} $out" referring plain.multiple.bin ];
      inherit (plain) single;
      all = [ plain.multiple.out plain.multiple.dev plain.noOut.lib ];
      source = ./every-kind.nix;
    };
    own = drv { name = "own"; outputs = [ "out" "doc" ]; here = placeholder "out"; there = placeholder "doc"; };
    escapes = drv {
      name = "escapes";
      args = [ "" "a\"b" "back\\slash" "line\nfeed" "carriage\rreturn" "tab\there" "\\n" "\${dollar}" "\\" ];
      quote = "\"";
      "odd name" = "x";
      empty = "";
    };
    controls = drv { name = "controls"; all = builtins.fromJSON ''"\u0001\b\f\u001f\u007f\u2028"''; args = [ (builtins.fromJSON ''"\b"'') ]; "10" = "x"; "9" = "y"; };
    unicode = drv { name = "unicode"; description = "Größe → ∞ 🎒"; args = [ "é" ]; "ключ" = "значение"; };
    structured = drv {
      name = "structured";
      outputs = [ "out" "dev" ];
      __structuredAttrs = true;
      nested = { list = [ 1 2.5 true null "x\ny" ]; deep.er = "Größe"; };
      inherit (plain) single;
      version = "1.0";
    };
    noChroot = drv { name = "no-chroot"; __noChroot = true; };
    fetch = builtins.derivation {
      name = "source.tar.gz"; system = "builtin"; builder = "builtin:fetchurl";
      url = "https://example.org/source.tar.gz"; outputHashMode = "flat"; outputHashAlgo = "sha256";
      outputHash = hash "sha256"; impureEnvVars = [ "http_proxy" ]; preferLocalBuild = true;
    };
    flatMd5 = fixed "flat-md5" "flat" "md5";
    flatSha1 = fixed "flat-sha1" "flat" "sha1";
    flatSha256 = fixed "flat-sha256" "flat" "sha256";
    flatSha512 = fixed "flat-sha512" "flat" "sha512";
    narMd5 = fixed "nar-md5" "recursive" "md5";
    narSha1 = fixed "nar-sha1" "recursive" "sha1";
    narSha256 = fixed "nar-sha256" "recursive" "sha256";
    narSha512 = fixed "nar-sha512" "recursive" "sha512";
    sri = drv { name = "sri"; outputHashMode = "recursive"; outputHash = "sha256-${"A" + builtins.substring 0 42 "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}="; };
    # Two derivations that differ only in how a fixed output is fetched have one hash modulo, and merge.
    merged = drv {
      name = "merged";
      inputs = [
        (fixed "same" "flat" "sha256")
        (drv { name = "same"; outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = hash "sha256"; mirror = 2; })
        plain.narSha512
      ];
    };
    mergedDeep =
      let
        middle = url: drv { name = "middle"; outputs = [ "out" "dev" ]; src = drv {
          name = "src"; outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = hash "sha256"; inherit url; }; };
      in
      drv { name = "merged-deep"; a = (middle "x").out; b = (middle "y").dev; c = (middle "y").out; };
    needsDrv = drv { name = "needs-drv"; graph = [ "graph" (builtins.unsafeDiscardOutputDependency plain.uses.drvPath) ]; };
    needsAll = drv { name = "needs-all"; drvs = plain.uses.drvPath; };
    last = drv { name = "last"; inputs = chain; };
  };
  experimental = rec {
    floating = drv { name = "floating"; __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; outputs = [ "out" "dev" ]; };
    floatingFlat = drv { name = "floating-flat"; __contentAddressed = true; outputHashMode = "flat"; outputHashAlgo = "sha1"; };
    floatingUse = drv { name = "floating-use"; __contentAddressed = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; inherit floating; dev = floating.dev; };
    deferred = drv { name = "deferred"; outputs = [ "out" "dev" ]; dev2 = floating.dev; inherit (plain) single; };
    deferredTwice = drv { name = "deferred-twice"; inherit deferred; };
    impure = drv { name = "impure"; __impure = true; outputHashMode = "recursive"; outputHashAlgo = "sha256"; };
    impureUse = drv { name = "impure-use"; __impure = true; inherit impure; };
    fixedOfImpure = drv { name = "fixed-of-impure"; inherit impure; outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = hash "sha256"; };
    behindFixed = drv { name = "behind-fixed"; src = fixedOfImpure; };
  };
  dynamic = rec {
    producer = drv { name = "producer.drv"; __contentAddressed = true; outputHashMode = "text"; outputHashAlgo = "sha256"; };
    uses = drv { name = "uses"; made = builtins.outputOf producer.outPath "dev"; inherit (plain) single; };
    usesBoth = drv { name = "uses-both"; text = producer; made = builtins.outputOf producer.outPath "out"; };
    usesDeep = drv { name = "uses-deep"; made = builtins.outputOf (builtins.outputOf producer.outPath "out") "bin"; };
    usesFixed = drv { name = "uses-fixed"; made = builtins.outputOf producer.outPath "out"; outputHashMode = "flat"; outputHashAlgo = "sha256"; outputHash = hash "sha256"; };
  };
  texts = { inherit text referring; };
}
