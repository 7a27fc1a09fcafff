"""An ordinary day: nothing here may be stopped."""

DENY: list[str] = []
ASK: list[str] = []
NO = {"run": "needs tools or the network"}
ALLOW = [
    (command, NO)
    for command in (
        "ls -la", "pwd", "git status", "git log --oneline -5", "git diff HEAD~1 --stat", "npm test", "npm run build", "pytest -q", "make test",
        "cargo build --release", "go test ./...", "ruff check .", "uv sync", "uv run pytest -x", "python manage.py migrate", "pip install -r requirements.txt",
        "docker compose -f docker-compose.web.yml ps", "curl -s http://localhost:8000/health", "echo done > /tmp/done-{id}.txt", "cat package.json | jq .name",
        "find . -name '*.py' | xargs wc -l", "grep -rn TODO src | head", "sed -i 's/foo/bar/' README.md", "mv notes.txt docs/", "cp README.md README.bak",
        "rm -f *.log", "rm -rf build/ dist/ *.egg-info", "mkdir -p out && touch out/x", "tar czf /tmp/src-{id}.tgz docs", "git checkout -b feature", "git stash",
        "git rebase origin/main", "git reset --soft HEAD~1", "kill %1", "python -m http.server 8000 &", "export PATH=$PATH:/opt/bin", "source .venv/bin/activate",
        "for i in 1 2 3; do echo $i; done", "while ! curl -s localhost:1; do sleep 1; done", "[ -f .env ] && cat .env | cut -d= -f1", "awk '{print $1}' README.md | sort | uniq -c",
        "python3 - <<'EOF'\nimport json\nprint(json.dumps({'a': 1}))\nEOF", "cat > src.py <<'EOF'\nimport os\nprint(os.getcwd())\nEOF", "git commit -am \"Fix: don't crash when $HOME is unset\"",
        "ssh host 'rm -rf adapters'", "scp host:log.txt /tmp/log-{id}.txt", "tail -100 train.log | grep loss", "watch -n 1 nvidia-smi", "ps aux | sort -rk 3 | head", "df -h && du -sh .",
        "brew install wget", "open docs/index.html", "code .", "jq '.a = 1' package.json > /tmp/p-{id}.json", "xargs -n1 echo < notes.txt", "diff <(ls docs) <(ls build)", "time python3 harmless.py",
        "mlx-training doctor --json", "mlx_lm.generate --help", "hf cache ls", "uvx ruff check", "git worktree add ../wt main", "git clean -nd", "chmod +x harmless.sh && ./harmless.sh",
        "node -e 'console.log(1)'", "npx prettier --check .", "tsc --noEmit", "terraform plan", "aws s3 ls", "gh pr list", "head -c 16 /dev/urandom | xxd", "date +%s > /tmp/t-{id}", "history | tail",
        "python -c \"import sys; print(sys.version)\"", "env | sort | head", "stat -f %z README.md", "cat docs/adapters/notes.md", "echo \"models: $(ls models)\"", "test -d adapters || mkdir adapters",
        "mkdir -p adapters/exp-7 models/new", "ls adapters > /tmp/l-{id}.txt", "cp lora.yaml adapters-config.yaml", "sed -i 's/iters: 100/iters: 200/' lora.yaml", "vim lora.yaml", "git mv docs/adapters docs/lora",
    )
]  # fmt: skip
