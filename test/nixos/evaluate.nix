# A small evaluator of modules, for where nixpkgs' `lib` is not at hand. It knows what nix/modules/agent.nix
# uses and no more: options, defaults, mkIf, mkMerge, submodules, and types that are checked. No priorities,
# no imports, no option documentation.
let
  inherit (builtins)
    all any attrNames attrValues concatMap concatStringsSep elem filter foldl' hasAttr head
    intersectAttrs isAttrs isBool isFloat isFunction isInt isList isPath isString length listToAttrs
    mapAttrs match removeAttrs toJSON typeOf;

  isMarked = mark: value: isAttrs value && value._type or null == mark;
  mkOption = option: option // { _type = "option"; };
  mkIf = condition: content: { _type = "if"; inherit condition content; };
  mkMerge = contents: { _type = "merge"; inherit contents; };
  genAttrs = names: make: listToAttrs (map (name: { inherit name; value = make name; }) names);
  show = concatStringsSep ".";

  # The definitions of a member below a definition. Conditions go along unread: they may depend on other members.
  pick = name: value:
    if isMarked "if" value then map (mkIf value.condition) (pick name value.content)
    else if isMarked "merge" value then concatMap (pick name) value.contents
    else if isAttrs value && hasAttr name value then [ value.${name} ]
    else [ ];
  namesOf = value:
    if isMarked "if" value then namesOf value.content
    else if isMarked "merge" value then concatMap namesOf value.contents
    else if isAttrs value then attrNames value
    else throw "expected a set of definitions, saw a ${typeOf value}";
  discharge = value:
    if isMarked "if" value then (if value.condition then discharge value.content else [ ])
    else if isMarked "merge" value then concatMap discharge value.contents
    else [ value ];

  # A type says which values it takes, and makes one of several: `merge PATH VALUES`.
  type = description: check: {
    inherit description check;
    merge = path: values:
      if all (value: value == head values) values then head values
      else throw "The option `${show path}' has conflicting definition values";
  };
  checked = path: type: values:
    if all type.check values then type.merge path values
    else throw "A definition for option `${show path}' is not of type `${type.description}'";
  mergeEach = path: type: values:
    genAttrs (filter (name: any (value: value ? ${name}) values) (concatMap attrNames values))
      (name: checked (path ++ [ name ]) type (concatMap discharge (concatMap (pick name) values)));

  types = rec {
    str = type "string" isString;
    bool = type "boolean" isBool;
    int = type "signed integer" isInt;
    float = type "floating point number" isFloat;
    path = type "absolute path" (value: isPath value || isString value && match "/.*" value != null);
    package = type "package" (value: value.type or null == "derivation");
    anything = type "anything" (_: true);
    enum = values: type "one of ${toJSON values}" (value: elem value values);
    strMatching = pattern: type "string matching the pattern ${pattern}" (value: isString value && match pattern value != null);
    ints.between = low: high: type "integer between ${toString low} and ${toString high}" (value: isInt value && low <= value && value <= high);
    numbers.between = low: high:
      type "number between ${toString low} and ${toString high}" (value: (isInt value || isFloat value) && low <= value && value <= high);
    listOf = element: type "list of ${element.description}" isList // {
      merge = path: values: map (value: checked (path ++ [ "*" ]) element [ value ]) (concatMap (value: value) values);
    };
    # The names of attributes may not depend on what they are merged into; values that are all conditional and
    # off are left out.
    attrsOf = element: type "attribute set of ${element.description}" isAttrs // {
      merge = path: values:
        let on = filter (name: concatMap discharge (concatMap (pick name) values) != [ ]) (concatMap attrNames values);
        in intersectAttrs (genAttrs on (_: null)) (mergeEach path element values);
    };
    oneOf = choices: type "one of several types" (value: any (choice: choice.check value) choices) // {
      merge = path: values: checked path (head (filter (choice: all choice.check values) choices)) values;
    };
    nullOr = other: type "null or ${other.description}" (value: value == null || other.check value) // {
      merge = path: values: if all (value: value == null) values then null else checked path other values;
    };
    submodule = { options, freeformType ? null }: type "submodule" isAttrs // {
      merge = path: values:
        let rest = map (value: removeAttrs value (attrNames options)) values;
        in (if freeformType == null then refuse path (concatMap attrNames rest) { } else checked path freeformType rest)
          // evaluate path options (map (intersectAttrs options) values);
    };
  };

  refuse = path: names: value:
    if names == [ ] then value else throw "The option `${show (path ++ [ (head names) ])}' does not exist";

  evaluate = path: options: definitions:
    if isMarked "option" options then
      let values = concatMap discharge definitions;
      in if values != [ ] then checked path options.type values
      else if options ? default then checked path options.type [ options.default ]
      else throw "The option `${show path}' was accessed but has no value defined. Try setting the option."
    else
      refuse path (filter (name: !(hasAttr name options)) (concatMap namesOf definitions))
        (mapAttrs (name: option: evaluate (path ++ [ name ]) option (concatMap (pick name) definitions)) options);

  # Two trees of options, which share no option.
  join = left: right:
    if isMarked "option" left || isMarked "option" right then throw "an option is declared twice"
    else left // right // mapAttrs (name: value: if left ? ${name} then join left.${name} value else value) right;

  lib = {
    inherit mkOption mkIf mkMerge genAttrs types;
    mkEnableOption = description: mkOption { type = types.bool; default = false; inherit description; };
    filterAttrs = keep: set: removeAttrs set (filter (name: !(keep name set.${name})) (attrNames set));
    hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
    evalModules = { modules }:
      let
        called = map (module: let body = if isPath module then import module else module; in
          if isFunction body then body { inherit config lib; } else body) modules;
        shaped = map (module: if module ? options || module ? config then module else { config = module; }) called;
        options = foldl' join { } (map (module: module.options or { }) shaped);
        config = evaluate [ ] options (map (module: module.config or { }) shaped);
      in { inherit config; };
  };
in
lib
