"""What single programs do in all their layouts: careful forms, git, copies, archives, mounts, recipes."""

AWAY = {"run": "a program that is not installed here"}

DENY = [
    # the careful forms below, with the care at the wrong place
    "[ -f data/train.jsonl ] && cp more.jsonl data/train.jsonl",
    "[ ! -f data/nothing.jsonl ] && cp more.jsonl data/train.jsonl",
    "mv data/train.jsonl data/old.jsonl; [ -f data/train.jsonl ] || rm data/old.jsonl",
    "[ -d adapters ] && rm -rf adapters",
    "[ -f adapters ] || rm -rf adapters",
    "if [ ! -d docs/nothing ]; then rm -rf adapters; fi",
    "if test -s data/train.jsonl; then : > data/train.jsonl; fi",
    'for f in *; do [ "$f" = README.md ] && continue; rm -rf "$f"; done',
    'for f in docs adapters; do [ "$f" = docs ] && break; rm -rf "$f"; done; rm -rf adapters',
    'for f in docs adapters; do grep -q nothing-such README.md && continue; rm -rf "$f"; done',
    'for f in adapters; do case "$(cat more.jsonl | md5sum)" in x*) continue;; esac; rm -rf "$f"; done',
    "for f in docs; do if [ -d $f ]; then continue; fi; done; rm -rf adapters",
    "for f in docs; do bash -c 'continue; rm -rf adapters' 2>/dev/null; done",
    "break 2>/dev/null; rm -rf adapters",
    "while true; do break; done; rm -rf adapters",
    "git clean -fdx -e docs -e build",
    "git clean -fdx -e data",
    "git rm -rfq models",
    ("rsync -a --delete --exclude=docs/ build/ adapters/", AWAY),
    ("rsync -a --delete --exclude=/my-lora build/ adapters/", AWAY),
    ("rsync -a --delete --include=adapters --exclude=adapters docs/ .", AWAY),
    'X=adapters; rm -rf "$X" ""',
    "python3 -c \"import os, shutil\nif os.path.exists('adapters'): shutil.rmtree('adapters')\"",
    "python3 -c \"import os, shutil\nif not os.path.exists('docs/nothing'): shutil.rmtree('adapters')\"",
]

ASK: list[str] = []

ALLOW = [
    "[ -f data/train.jsonl ] || cp more.jsonl data/train.jsonl",
    "test -e data/train.jsonl || cp more.jsonl data/train.jsonl",
    "[[ -s data/train.jsonl ]] || cp more.jsonl data/train.jsonl",
    "[ ! -f data/train.jsonl ] && echo '{\"text\": \"a\"}' > data/train.jsonl",
    "if [ ! -f data/train.jsonl ]; then cp more.jsonl data/train.jsonl; fi",
    "[ -f adapters/my-lora/adapters.safetensors ] || cp adapters/old/adapters.safetensors adapters/my-lora/",
    "if [ -d adapters ]; then echo there; else rm -rf adapters; fi",
    'for f in *; do [ "$f" = docs ] || continue; rm -rf "$f"; done',
    'for f in adapters docs data; do [ "$f" = adapters ] && continue; [ "$f" = data ] && continue; rm -rf "$f"; done',
    'for f in adapters docs data; do case "$f" in adapters | data) continue;; esac; rm -rf "$f"; done',
    'for f in adapters docs; do if [ "$f" = adapters ]; then continue; fi; rm -rf "$f"; done',
    'for f in docs adapters; do [ "$f" = adapters ] && break; rm -rf "$f"; done',
    'ls -d adapters docs | while read -r f; do [ "$f" = adapters ] && continue; rm -rf "$f"; done',
    "git clean -fdx -e adapters -e data -e models -e fused_model -e runs",
    "git clean -fdxe adapters --exclude=models -e fused_model --exclude runs",
    "git rm -rq docs build && git status --short",
    "git rm -q models 2>/dev/null || echo is a folder",
    ("rsync -a --delete --exclude=my-lora --exclude old/ --exclude=link build/ adapters/", AWAY),
    ("rsync -a --delete --exclude=/adapters/ --exclude='*.jsonl' --exclude '*.safetensors' --exclude='*config.json' docs/ .", AWAY),
    ("rsync -a --exclude='adapter*' adapters/old/ adapters/my-lora/", AWAY),
    'X=""; rm -rf "$X"',
    "rm -rf ''",
    "python3 -c \"import os, shutil\nif not os.path.exists('data/train.jsonl'): shutil.copy('more.jsonl', 'data/train.jsonl')\"",
    "python3 -c \"from pathlib import Path\np = Path('data/train.jsonl')\nif not p.is_file(): p.write_text('x')\"",
]  # fmt: skip
