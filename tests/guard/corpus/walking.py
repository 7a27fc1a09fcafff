"""What depends on how the shell is followed: unknown folders, globs beside unknown text, conditions that nobody knows."""

SET = {"run": "its variables have values where it is run, and none in the check"}

UNKNOWN_FOLDER_DENY = [
    'cd "$(git rev-parse --show-toplevel)" && rm -rf adapters',
    'rm -rf "$(git rev-parse --show-toplevel)/adapters"',
    'git -C "$(git rev-parse --show-toplevel)" clean -fdx',
    ('git -C "$REPO" clean -fdx', SET),
    ('cd "$REPO" && > data/train.jsonl', SET),
    ('cd "$REPO" && git clean -fdx', SET),
    ('cd "$REPO" && rm -rf adapters/*', SET),
    ('cd "$REPO/adapters" && rm -rf *', SET),
    ('cd "$REPO"; cd adapters; rm -rf *', SET),
    ('cd "$A" && cd "$B" && rm -rf ./adapters', SET),
    ('cd "$REPO" && echo adapters | xargs rm -rf', SET),
    ('cd "$REPO" && python -c "import shutil; shutil.rmtree(\'adapters\')"', SET),
    ('cd "$RUN" && rm -f adapters.safetensors', SET),
    ('cd "$RUN" && rm -f *.safetensors', SET),
    ('cd "adapters/$NAME" && rm -rf *', SET),
]
UNKNOWN_FOLDER_ALLOW = [
    ('cd "$REPO" && rm -rf build dist', SET),
    ('cd "$REPO" && git status', SET),
    'cd "$(mktemp -d)" && rm -rf adapters',
    ('cd "$WORK" && rm -rf *', SET),
    ('cd "$REPO" && cp -n data/train.jsonl data/train.jsonl.bak && sed -i s/a/b/ data/train.jsonl', SET),
    ('cd "$REPO/docs" && rm -rf adapters', SET),
    'cd "$(git rev-parse --show-toplevel)/docs" && rm -rf data',
    ('cd "$D" && rm -f *.pyc', SET),
    ('cd "$OUT" && cp more.jsonl test.jsonl', SET),
    ('pushd "$X"; rm -rf build; popd; ls adapters', SET),
]
UNKNOWN_GLOB_DENY = [
    ('rm -rf adapters/"$NAME"/*', SET),
    ("rm -f adapters/$NAME*/*.safetensors", SET),
    ('rm -f "$OUT"/adapters/*/*.safetensors', SET),
    ('rm -f "$RUN"/*.safetensors', SET),
    ("rm -f runs/[a-z]*-$N/*", SET),
    ("rm -rf $X/models/*", SET),
    ("for r in $(jq -r '.[]' x.json); do rm -rf adapters/$r/*; done", SET),
    ("N=$((50*2)); rm -f adapters/my-lora/*{$N,200}_adapters.safetensors", SET),
]
UNKNOWN_GLOB_ALLOW = [
    ('rm -rf "$WORK"/*', SET),
    ('rm -rf "$A/$B"', SET),
    ('rm -rf "$A"/*/*', SET),
    ('rm -rf "/tmp/$X"/*', SET),
    ('rm -f "$OUT"/*.log "$X"/config.json', SET),
    ("rm -rf docs/$X/* build/$X*", SET),
    ('jq -c . more.jsonl > "$OUT/train.jsonl"', SET),
    ('ls adapters/"$NAME"/* data/$X*.jsonl', SET),
]

DENY = UNKNOWN_FOLDER_DENY + UNKNOWN_GLOB_DENY
ASK: list[object] = []
ALLOW = UNKNOWN_FOLDER_ALLOW + UNKNOWN_GLOB_ALLOW
