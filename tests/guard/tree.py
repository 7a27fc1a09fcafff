"""A throw-away project with adapters, models and data, a home folder, and (on demand) a running job."""

from __future__ import annotations

import contextlib
import fcntl
import json
import subprocess
import sys
import tarfile
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PLUGIN = Path(__file__).resolve().parents[2]
ROW = {"messages": [{"role": "user", "content": "the capital of France?"}, {"role": "assistant", "content": "Paris"}]}
WEIGHTS = ("adapters/my-lora", "adapters/old", "models/Qwen2.5-3B-4bit", "models/tracked", "fused_model", "runs/exp-1")


class Tree:
    """The folders of one throw-away world."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.root = base / "project"
        self.home = base / "home"

    def build(self) -> Tree:
        self.root.mkdir(parents=True)
        self.home.mkdir()
        write = self.write
        for number, folder in enumerate(WEIGHTS):
            name = "adapters.safetensors" if "adapters" in folder or "runs" in folder else "model.safetensors"
            write(f"{folder}/{name}", f"weights {number}\n" * 9)
            config = "adapter_config.json" if name.startswith("adapters") else "config.json"
            write(f"{folder}/{config}", json.dumps({"number": number, "rank": 8}))
        for step in (100, 200):
            write(f"adapters/my-lora/{step:07d}_adapters.safetensors", f"step {step}\n")
        for number, name in enumerate(("train", "valid", "test")):
            rows = [dict(ROW, n=number), dict(ROW, n=number + 10)]
            write(f"data/{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        write("data/raw.csv", "a,b\n")
        write("data/scratch.tmp", "x")
        write("more.jsonl", json.dumps(ROW) + "\n")
        write("docs/adapters/notes.md", "notes\n")
        write("docs/data/readme.md", "about\n")
        write("docs/index.html", "<p>")
        write("build/out.txt", "out\n")
        write("build/adapters/x.txt", "x\n")
        write("dist/x", "x")
        write("README.md", "Readme a\n")
        write("notes.txt", "notes\n")
        write("files.txt", "adapters\n")
        write(
            ".gitignore", ".env\nadapters/\n/models/Qwen2.5-3B-4bit/\nfused_model/\nruns/\n__pycache__/\n*.pyc\n*.tgz\n"
        )
        write("cleanup.sh", "#!/bin/bash\nset -e\nrm -rf adapters\n", 0o755)
        write("harmless.sh", "#!/bin/bash\n# rm -rf adapters\necho 'rm -rf adapters'\n", 0o755)
        write("push.sh", "#!/bin/sh\nhf upload me/x adapters/my-lora\n", 0o755)
        write("wipe.py", "import shutil\n\nshutil.rmtree('adapters')\n")
        write("harmless.py", "text = \"shutil.rmtree('adapters')\"\nprint(text)\n")
        write(
            "train_mlx.py", "import mlx.core as mx\nfrom mlx_lm.tuner.trainer import train\n\ntrain(None, None, None)\n"
        )
        write("tools/__init__.py", "")
        write("tools/wipe.py", "import os\n\nos.remove('data/train.jsonl')\n")
        write("lora.yaml", "model: m\ntrain: true\ndata: data\nadapter_path: adapters/from-yaml\niters: 100\n")
        write("existing.yaml", "model: m\ntrain: true\ndata: data\nadapter_path: adapters/my-lora\n")
        write("Makefile", "DIR = adapters\nbuild:\n\techo building\nclean-weights: build\n\trm -rf $(DIR)\n")
        write("package.json", json.dumps({"name": "x", "scripts": {"build": "echo build", "wipe": "rm -rf adapters"}}))
        write("Dockerfile", "FROM node:20\nRUN npm ci\n")
        write("Dockerfile.mlx", "FROM python:3.12\nRUN pip install mlx-lm\nCMD mlx_lm.lora --train\n")
        write(
            "docker-compose.yml",
            "services:\n  db:\n    image: postgres\n  trainer:\n    image: x\n    command: python -m mlx_lm lora --train\n",
        )
        write("docker-compose.web.yml", "services:\n  web:\n    image: nginx\n")
        write("n.ipynb", "{}")
        write(".claude/settings.json", "{}")
        (self.root / "adapters/link").symlink_to("my-lora")
        (self.root / "current").symlink_to("adapters/my-lora")
        with tarfile.open(self.root / "weights.tgz", "w:gz") as archive:
            archive.add(self.root / "adapters/old/adapter_config.json", "adapters/my-lora/adapters.safetensors")
        with tarfile.open(self.root / "docs.tgz", "w:gz") as archive:
            archive.add(self.root / "README.md", "docs/unpacked.md")
        hub = self.home / ".cache/huggingface/hub/models--Qwen--Qwen2.5-3B/snapshots/abc"
        hub.mkdir(parents=True)
        (hub / "model.safetensors").write_text("cached weights")
        (self.home / ".cache/huggingface/token").write_text("none")
        job = self.home / ".mlx-training/jobs/job-1"
        job.mkdir(parents=True)
        (job / "state.json").write_text('{"state": "working"}')
        (job / "metrics.jsonl").write_text("")
        (self.home / ".mlx-training/gpu.lock").write_text("{}")
        (self.home / ".claude").mkdir()
        self.git_init()
        return self

    def git_init(self) -> None:
        def git(*words: str) -> None:
            identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]
            subprocess.run(
                ["git", *identity, *words], cwd=self.root, check=True, capture_output=True, env=self.environment()
            )

        git("init")
        git("add", "-A")
        git("commit", "-m", "first")
        git("config", "user.name", "t")
        git("config", "user.email", "t@t")
        git("remote", "add", "origin", "https://github.com/me/x.git")
        git("remote", "add", "hf", "https://huggingface.co/me/x")
        # uncommitted work in tracked files: what a restore would throw away
        for path in ("models/tracked/model.safetensors", "data/train.jsonl"):
            with (self.root / path).open("a") as file:
                file.write("new weights\n" if path.endswith("tensors") else json.dumps(dict(ROW, n=99)) + "\n")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def environment(self) -> dict[str, str]:
        """A clean environment: this machine's own variables stay out."""
        facts = self.base / "facts.json"
        if not facts.exists():
            self.base.mkdir(exist_ok=True)
            facts.write_text(json.dumps({
                "system": "Darwin", "machine": "arm64", "translated": False, "container": False, "macos": "26.1", "chip": "Apple M4",
                "memory_bytes": 64_000_000_000, "metal": True, "cuda": False,
            }))  # fmt: skip
        return {
            "HOME": str(self.home),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "USER": "t",
            "LANG": "C.UTF-8",
            "MLX_TRAINING_FACTS": str(facts),
            "CLAUDE_PROJECT_DIR": str(self.root),
            "CLAUDE_PLUGIN_DATA": str(self.base / "plugin-data"),
            "GIT_CONFIG_GLOBAL": "/dev/null",
        }

    def fill(self, text: str, ids: dict[str, int] | None = None) -> str:
        values = {"root": self.root, "home": self.home, "plugin": PLUGIN, "id": self.base.name, **(ids or {})}
        for name, value in values.items():
            text = text.replace("{" + name + "}", str(value))
        return text

    @contextlib.contextmanager
    def training(self):
        """A job that holds the lock, as the runner does: gives the ids by name. Ends only what it started."""
        lock = self.home / ".mlx-training/gpu.lock"
        with contextlib.ExitStack() as stack:
            started = [stack.enter_context(sleeper()) for _ in range(3)]
            worker, runner, other = started
            with lock.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                file.truncate()
                file.write(json.dumps({
                    "job_id": "job-1", "pid": worker.pid, "pgid": worker.pid, "runner_pid": runner.pid,
                    "adapter_path": str(self.root / "adapters/running"), "project": str(self.root), "kind": "train",
                }))  # fmt: skip
                file.flush()
                yield {"pid": worker.pid, "pgid": worker.pid, "runner": runner.pid, "other": other.pid}
            lock.write_text("{}")


@contextlib.contextmanager
def sleeper():
    """A process of its own session that waits to be ended."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "import time; time.sleep(900)"], start_new_session=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ask_hook(
    payload: dict[str, Any], environment: dict[str, str], script: str = "pre_tool_use.py", cwd: str = "/"
) -> subprocess.CompletedProcess[bytes]:
    """Run a hook as Claude Code does: its own process, JSON on standard input."""
    return subprocess.run(
        [sys.executable, "-I", "-S", str(PLUGIN / "hooks" / script)],
        input=json.dumps(payload).encode(), capture_output=True, env=environment, cwd=cwd, timeout=30, check=False,
    )  # fmt: skip


def decision(done: subprocess.CompletedProcess[bytes]) -> str:
    """The hook's decision: allow, ask, deny, or error:... when it broke its contract."""
    if done.returncode == 2:
        return "error:" + done.stderr.decode()[:200]
    if done.returncode or done.stderr:
        return f"error:rc {done.returncode} {done.stderr.decode()[:200]}"
    if not done.stdout:
        return "allow"
    answer = json.loads(done.stdout)["hookSpecificOutput"]
    if answer["hookEventName"] != "PreToolUse" or answer["permissionDecision"] not in ("deny", "ask"):
        return "error:" + done.stdout.decode()[:200]
    return answer["permissionDecision"]


def bash(command: str, tree: Tree) -> dict[str, Any]:
    return {
        "session_id": "s",
        "hook_event_name": "PreToolUse",
        "tool_name": "Bash",
        "cwd": str(tree.root),
        "tool_input": {"command": command, "description": "x"},
    }
