"""What the benchmarks compare with and count by, each from its package index into a folder of its own, once.

    python benchmarks/environments.py

fetches all of it into ``$MLX_TRAINING_BENCH_ENVIRONMENTS``, or ``.cache/bench`` of this repository, so that a measurement
doesn't pay for it; else each is fetched when first asked for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

TRAINERS = ("mlx-lm-lora", "mlx-tune")
HOOK = "cc-safety-net@2.4.5"
VOCABULARY = "anthropic==0.38.0"  # the last Python package that carries a tokenizer of Claude's, an older model's
SECONDS = 900.0


class UnavailableError(Exception):
    """Something can't be had on this machine; the message says why."""


def folder() -> Path:
    return Path(os.environ.get("MLX_TRAINING_BENCH_ENVIRONMENTS") or ROOT / ".cache" / "bench").absolute()


def trainer(package: str) -> Path:
    """The Python of an environment with ``package`` and, on Linux, the CPU build of the MLX that we run on."""

    def install(place: Path) -> None:
        from importlib.metadata import version

        mlx = [f"mlx[cpu]=={version('mlx')}"] if sys.platform == "linux" else []
        _uv("venv", "--quiet", "--python", sys.executable, str(place))
        _uv("pip", "install", "--quiet", "--python", str(place / "bin" / "python"), package, *mlx)

    return _installed(package, install) / "bin" / "python"


def hook() -> list[str]:
    """The command of cc-safety-net as a Claude Code hook, with node named in full: no shim's time is counted."""
    node = shutil.which("node")
    if node is None:
        raise UnavailableError("node is not installed")

    def install(place: Path) -> None:
        place.mkdir()
        (place / "package.json").write_text('{"private": true}\n', encoding="utf-8")
        _run("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(place), HOOK)

    package = _installed(HOOK, install) / "node_modules" / "cc-safety-net"
    return [str(Path(node).resolve()), str(package / "dist/bin/cc-safety-net.js"), "hook", "--claude-code"]


def vocabulary() -> Path:
    """The file of the tokenizer that tokens are counted with."""

    def install(place: Path) -> None:
        _uv("pip", "install", "--quiet", "--no-deps", "--python", sys.executable, "--target", str(place), VOCABULARY)

    return _installed(VOCABULARY, install) / "anthropic" / "tokenizer.json"


def client() -> Path:
    """The newest Claude Code, in the cache of the end-to-end tests."""
    from tests.e2e import install

    try:
        return install.claude("newest")
    except install.Unavailable as error:
        raise UnavailableError(str(error)) from error


def _installed(name: str, install: Callable[[Path], None]) -> Path:
    """The folder of this name, complete: what was begun and not finished is begun anew."""
    place = folder() / name
    finished = folder() / f"{name}.installed"
    if not finished.exists():
        shutil.rmtree(place, ignore_errors=True)
        folder().mkdir(parents=True, exist_ok=True)
        install(place)
        finished.touch()
    return place


def _uv(*arguments: str) -> None:
    _run(os.environ.get("UV") or shutil.which("uv") or "uv", *arguments)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=SECONDS)
    except FileNotFoundError as error:
        raise UnavailableError(f"{command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(f"{command[0]} took more than {SECONDS:.0f} s") from error
    except subprocess.CalledProcessError as error:
        raise UnavailableError(f"{command[0]}: {error.stderr.strip()[-300:]}") from error


def prepare() -> None:
    """Fetch everything; say of each where it lies or why it can't be had."""
    wanted: dict[str, Callable[[], object]] = {name: lambda name=name: trainer(name) for name in TRAINERS}
    wanted |= {HOOK: lambda: hook()[1], VOCABULARY: vocabulary, "Claude Code": client}
    for name, fetch in wanted.items():
        try:
            print(f"{name}: {fetch()}", file=sys.stderr)
        except UnavailableError as error:
            print(f"{name}: not available: {error}", file=sys.stderr)


if __name__ == "__main__":
    prepare()
