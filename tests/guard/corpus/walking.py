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

CONDITIONS_DENY = [
    "[ -f done ] && exit 0; rm -rf adapters",
    "grep -q x README.md && exit 1; rm -rf adapters",
    "test -d nothing && { echo there; exit 1; }; rm -rf adapters",
    "f(){ [ -f lock ] && return 0; rm -rf adapters; }; f",
    "if [ -f lock ]; then exit 1; fi; rm -rf adapters",
    "cd nobuild && make clean; rm -rf *",
    "cd nobuild 2>/dev/null && echo in; rm -rf -- *",
    "cd nobuild || true; rm -rf *",
    "cd nobuild; rm -rf *",
    "D=adapters; test -d x && D=build; rm -rf $D",
    'D=adapters; case $(uname) in Linuxx) D=build;; esac; rm -rf "$D"',
    "D=adapters; while read l; do D=build; done < nofile; rm -rf $D",
    "D=adapters; while grep -q x nofile; do D=build; done; rm -rf $D",
    "D=build; grep -q x nofile || D=adapters; rm -rf $D",
    "if cd nobuild; then make; fi; rm -rf *",
    "if grep -q R README.md; then cd docs; fi; rm -rf adapters",
    "grep -q x nofile && cd docs; rm -rf adapters",
    "grep -q x nofile && cd docs; (cd . && rm -rf adapters)",
    "{ grep -q x nofile && cd docs; }; rm -rf adapters",
    "make nothing && cd docs && ls; rm -rf data",
    "i=0; while [ $i -lt 3 ]; do rm -rf adapters/my-lora/0000${i}00_adapters.safetensors; i=$((i+1)); done",
    "grep -q x README.md || rm -rf adapters",
    "set -e; cd docs && cd ..; rm -rf adapters",
    "set -e; cd nobuild && make; rm -rf *",
    "false || false || rm -rf adapters",
    "ls nofile && echo a || rm -rf adapters",
]
CONDITIONS_ALLOW = [
    "cd nobuild || exit 1; rm -rf *",
    "cd nobuild || { echo no; exit 1; }; rm -rf *",
    "set -e; cd nobuild; rm -rf *",
    "cd nobuild && rm -rf *",
    "mkdir -p build && cd build; rm -rf *",
    "cd build && make; rm -rf *",
    "D=build; test -d x && D=dist; rm -rf $D",
    "[ -d docs ] || exit 0; rm -rf build",
    'grep -q x README.md && D=build || D=dist; rm -rf "$D"',
    "if grep -q x README.md; then cd docs; else cd build; fi; rm -rf *",
    'case $(uname) in Linux) D=build;; *) D=dist;; esac; D2=$D; rm -rf "$D2"',
    "exit 0; rm -rf adapters",
    "i=0; while [ $i -lt 3 ]; do rm -rf build/run$i; i=$((i+1)); done",
    "true || rm -rf adapters",
    "false && rm -rf adapters",
    '[ -n "" ] && rm -rf adapters',
    "grep -q x nofile && cd docs; mlx_lm.lora --train --model m --data data --adapter-path adapters/new",
    "while ! curl -sf http://127.0.0.1:9/; do sleep 1; done; rm -rf build",
    "while true; do sleep 1; exit; done; rm -rf adapters",
    "cd docs && make; cd ..; rm -rf build",
    "cd docs && make; cd {root}/build; rm -rf *",
    "false && cd nobuild; rm -rf build",
    "until grep -q done README.md; do sleep 1; done",
]

FIND_DENY = [
    "find data -type f ! \\( -name '*.txt' -o -name '*.md' \\) -delete",
    "find . -not \\( -path ./.git -prune \\) -name '*.safetensors' -delete",
    "find . -path ./.git -prune -o -name '*.safetensors' -exec rm {} +",
    "find . \\( -path ./.git -o -path ./docs \\) -prune -o -type f -name 'adapters*' -print | xargs rm",
    "find . -name '*.log' -print -o -name '*.safetensors' -delete",
    "find adapters -exec sh -c 'rm -f \"$1\"' _ {} \\;",
    "find adapters -type f -exec sh -c 'for f; do rm \"$f\"; done' _ {} +",
    "find data -type f -not -name '*.csv' -not -name '*.tmp' -exec rm {} \\;",
    "find . -type f ! -path './docs/*' -a ! -path './.git/*' -delete",
    ("find \"$DIR\" -name '*.safetensors' -delete", SET),
    ('find "$DIR/adapters" -type f -delete', SET),
    ("find adapters/$X -type f -delete", SET),
    ("(cd \"$REPO\" && find . -name '*.safetensors' -delete)", SET),
    ("cd adapters/$X && find . -type f -delete", SET),
    "find . -path ./adapters -prune -o -type f -delete",
    "find . -user nobody -o -name adapters.safetensors -exec rm {} \\;",
]
FIND_ALLOW = [
    "find . -path ./adapters -prune -o -name __pycache__ -exec rm -rf {} +",
    "find . -path ./adapters -prune -o -name '*.log' -print | xargs rm -rf",
    "find data -type f ! \\( -name '*.jsonl' -o -name '*.md' \\) -delete",
    "find . \\( -name adapters -o -name models -o -name data -o -name runs -o -name fused_model -o -name .git \\) -prune -o -type f -name 'x*' -exec rm {} +",
    "find . -name '*.pyc' -delete",
    "find . -type d -name __pycache__ -exec rm -rf {} +",
    "find . -name '*.safetensors' -exec ls -l {} \\;",
    "find . -name '*.safetensors' -print -o -name '*.pyc' -delete",
    ('find "$LOGS" -mtime +30 -delete', SET),
    ("find \"$DIR\" -name '*.pyc' -delete", SET),
    ('cd "$LOGS" && find . -type f -mtime +30 -delete', SET),
    "find adapters -name '*.tmp' -not -newer README.md -delete",
    "find adapters -maxdepth 0 -type f -delete",
    "find build -mindepth 1 -delete",
    "find . -name '*.json' ! -name 'adapter_config.json' ! -name config.json -exec rm {} \\;",
]

PIPES_DENY = [
    "find runs -name '*.safetensors' -print0 | xargs -0I % sh -c 'rm %'",
    "find runs -name '*.safetensors' -print0 | xargs -0 -I % sh -c 'rm %'",
    "ls runs | xargs -rI{} rm -rf runs/{}",
    "ls runs | xargs -P4 -n1 -I{} rm -rf runs/{}",
    "ls -d runs/* | xargs -rn1 rm -rf",
    "xargs -ra files.txt rm -rf",
    "xargs --arg-file files.txt -t rm -rf",
    "ls -d runs/* | xargs --max-args 1 rm -rf",
    "printf 'adapters,models' | xargs -rd, rm -rf",
    "ls runs/exp-1/*.safetensors | grep -v best | xargs rm",
    "find runs -name '*.safetensors' | sort | sed '$d;1q' | xargs rm",
    "ls -d runs/* models/* | sort -r | sed 1d | xargs rm -rf",
    "ls -d adapters/* | grep -vF best | xargs -n 1 rm -rf",
    "echo adapters | sed 's/.*/rm -rf &/' | sh",
    "sed -n 's/^/rm -rf /p' files.txt | sh",
    "printf 'x\\nadapters\\n' | sed -e 's/^/rm -rf /' -e 's/x/y/' | sh",
    "awk '{system(\"rm -rf \" $1)}' files.txt",
    'awk \'{system("rm -rf " $1 "/my-lora")}\' files.txt',
    "awk '/ada/ {print $1}' files.txt | xargs rm -rf",
    "find runs -name '*.safetensors' | cut -d/ -f1 | sort -u | xargs rm -rf",
    "echo 1:adapters | awk -F: '{print $2}' | xargs rm -rf",
    "echo x adapters | awk '{print $NF}' | xargs rm -rf",
    ("find runs -name '*.safetensors' -print0 | xargs -0 -J % rm %", SET),
    ("parallel rm -rf {1} ::: adapters", SET),
    ("parallel -j2 rm -rf {} ::: adapters build", SET),
]
PIPES_ALLOW = [
    "ls -d adapters build | grep -v adapters | xargs rm -rf",
    "ls build | xargs -rI{} rm -rf build/{}",
    "find . -name '*.pyc' -print0 | xargs -0rn10 rm -f",
    "git status --porcelain | cut -c4- | xargs ls -d",
    "{ echo 'rm -rf'; echo adapters; } | xargs",
    "echo adapters | sed 's/.*/rm -rf &/'",
    ("ls build | parallel rm -rf build/{}", SET),
    "echo build/adapters | cut -d/ -f1 | xargs rm -rf",
    "ls docs | sed 's/$/.bak/' | xargs -I% rm -rf docs/%",
    "awk '{system(\"ls \" $1)}' files.txt",
    "printf 'build\\ndist\\n' | sed 's/d/D/' | xargs -n1 echo rm -rf",
    "seq 3 | xargs -P 2 -I{} echo adapters {}",
    "echo aXadaptersXb | sed 's/X/ /' | xargs rm -rf",
    "ls adapters | xargs -I{} -n1 echo {}",
    "awk -F, '{print $1}' data/raw.csv | sort | uniq -c",
    "ls -d adapters/* | sed -n '$p' | xargs ls",
]

PARAMETERS_DENY = [
    ': "${OUT_DIR:=adapters}"; rm -rf "$OUT_DIR"',
    ": ${OUT_DIR=adapters}; rm -rf $OUT_DIR",
    'rm -rf "${OUT_DIR:=adapters}/my-lora"',
    'clean() { rm -rf "${@:2}"; }; clean keep adapters',
    'a=(build adapters); rm -rf "${a[@]:1}"',
    'set -- a b adapters c; rm -rf "${@:3:1}"',
    "a=(x adapters y); rm -rf ${a[*]:1:1}",
    "printf 'x,adapters/my-lora/adapters.safetensors\\n' | while IFS=, read -r n p; do rm -f \"$p\"; done",
    "IFS=: read -r a b <<< x:adapters; rm -rf $b",
    'while IFS= read -r p; do rm -rf "$p"; done < files.txt',
    "IFS=,; read -r a b <<< 'build,adapters'; rm -rf \"$b\"",
    'p=adaptersXX; rm -rf "${p:0:8}"',
]
PARAMETERS_ALLOW = [
    'X=build; : "${X:=adapters}"; rm -rf "$X"',
    'clean() { rm -rf "${@:2}"; }; clean adapters build',
    'a=(adapters build); rm -rf "${a[@]:1}"',
    'set -- adapters; shift; rm -rf "${@:1}" build',
    "printf 'adapters,build\\n' | while IFS=, read -r n p; do rm -rf \"$p\"; done",
    "IFS=: read -r a b <<< adapters:build; rm -rf $b",
    'rm -rf "${X:-build}"',
    'a=(adapters build dist); rm -rf "${a[@]: -2}"',
    "while read -r a b; do echo $a; done < README.md",
    'echo "${@:1}"',
]

EITHER_DENY = [
    'test -d nothing && D=build || D=adapters; rm -rf "$D/my-lora"',
    'D=build; grep -q x nofile && D=adapters; T=$D/my-lora; rm -rf "$T"',
    'D=adapters; test -d x && D=build; rm -rf "$D"/*',
    "test -x nopython && PY=nopython || PY=python3; $PY wipe.py",
    "D=adapters; if grep -q x nofile; then D=build; fi; cd $D && rm -rf my-lora",
    'F=x.txt; grep -q x nofile && F=data/train.jsonl; echo hi > "$F"',
    'if grep -q x nofile; then A=adapters B=x; else A=models B=my-lora; fi; rm -rf "$A/$B"',
]
EITHER_ALLOW = [
    'D=build; grep -q x nofile && D=dist; rm -rf "$D"/adapters',
    "test -x nopython && PY=nopython || PY=python3; $PY harmless.py",
    'D=build; grep -q x nofile && D=dist; mkdir -p "$D/x"; cd "$D/x" && rm -rf *',
    "if grep -q x nofile; then A=docs; else A=build; fi; rm -rf $A/adapters",
    "A=adapters/n1; grep -q x nofile && A=adapters/n2; mlx_lm.lora --train --model m --data data --adapter-path $A",
    'a=(build dist); grep -q x nofile && b=1; rm -rf "${a[@]}"',
]

DENY = (
    UNKNOWN_FOLDER_DENY + UNKNOWN_GLOB_DENY + CONDITIONS_DENY + FIND_DENY + PIPES_DENY + PARAMETERS_DENY + EITHER_DENY
)
ASK: list[object] = []
ALLOW = (
    UNKNOWN_FOLDER_ALLOW
    + UNKNOWN_GLOB_ALLOW
    + CONDITIONS_ALLOW
    + FIND_ALLOW
    + PIPES_ALLOW
    + PARAMETERS_ALLOW
    + EITHER_ALLOW
)
