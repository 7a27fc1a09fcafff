"""Gets the programs that the end-to-end tests drive: Claude Code, Chromium and the protocol's own tools from npm, and uv.

A program is installed once into a cache folder that outlives the test run. Whatever can't be had is a reason to skip,
said in one sentence, never a failure of the plugin.
"""

from __future__ import annotations

import fcntl
import functools
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

PACKAGE = "@anthropic-ai/claude-code"

# Chromium for Linux as an npm package, and what drives it. Both known to work together.
BROWSER = ("@sparticuz/chromium@147.0.0", "playwright-core@1.65.1")

# The newest client, and the oldest one that the plugin promises to work with.
VERSIONS = ("newest", "2.1.197")


class Unavailable(Exception):
    """A program that the tests need can't be had on this machine; the message says which and why."""


def cache_folder() -> Path:
    configured = os.environ.get("MLX_TRAINING_TEST_CACHE")
    return Path(configured) if configured else Path.home() / ".cache" / "mlx-training-tests"


@contextmanager
def _locked(path: Path) -> Generator[None]:
    """One installer at a time, across pytest workers and worktrees."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _npm(*arguments: str, timeout: float) -> str:
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable("npm is not installed, so what these tests drive can't be fetched")
    try:
        done = subprocess.run([npm, *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"the npm registry did not answer within {timeout:.0f} s") from error
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no message"])[0]
        raise Unavailable(f"npm could not fetch what these tests drive: {reason}")
    return done.stdout.strip()


@functools.cache
def _newest() -> str:
    return _npm("view", PACKAGE, "dist-tags.latest", "--loglevel=error", timeout=60)


@functools.cache
def claude(version: str) -> Path:
    """The path of Claude Code's executable in the given version, installed first where need be."""
    resolved = _newest() if version == "newest" else version
    folder = _installed(
        f"claude-{resolved}",
        f"{PACKAGE}@{resolved}",
        "--ignore-scripts",
        then=lambda folder: _link_native_binary(folder / "node_modules" / PACKAGE),
    )
    return folder / "node_modules" / ".bin" / "claude"


def _installed(name: str, package: str, *flags: str, then: Callable[[Path], None] | None = None) -> Path:
    """The folder in the cache where npm has put one package, once for all test runs."""
    folder = cache_folder() / name
    finished = folder / "installed"
    with _locked(cache_folder() / f"{name}.lock"):
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / "package.json").write_text('{"private": true}\n')
            npm_flags = ("--prefix", str(folder), "--no-audit", "--no-fund", "--loglevel=error", *flags)
            _npm("install", *npm_flags, package, timeout=240)
            if then is not None:
                then(folder)
            finished.touch()
    return folder


@functools.cache
def node_program(package: str, version: str, program: str) -> list[str]:
    """The command that runs a program of an npm package, in a Node that is new enough (22) for it."""
    folder = _installed(f"{program}-{version}", f"{package}@{version}", "--ignore-scripts")
    return [str(_node()), str((folder / "node_modules" / ".bin" / program).resolve())]


@functools.cache
def _node() -> Path:
    found = shutil.which("node")
    if found is not None:
        shown = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
        if int(shown.removeprefix("v").partition(".")[0]) >= 22:
            return Path(found)
    return _installed("node-22", "node@22") / "node_modules" / ".bin" / "node"


@functools.cache
def browser() -> tuple[Path, dict[str, str]]:
    """A folder whose ``node_modules`` has playwright-core, and the environment that names Chromium's executable.

    ``$MLX_TRAINING_CHROMIUM`` or a Chromium or Chrome on PATH is taken, else on Linux the npm package, unpacked.
    """
    named = os.environ.get("MLX_TRAINING_CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if named is None and (sys.platform != "linux" or platform.machine() != "x86_64"):
        raise Unavailable("there is no Chromium here; install one, or name it in MLX_TRAINING_CHROMIUM")
    folder = cache_folder() / f"browser-{BROWSER[0].rpartition('@')[2]}"
    with _locked(folder.with_suffix(".lock")):
        if not (folder / "installed").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            (folder / "package.json").write_text('{"private": true}\n')
            npm_flags = ("--prefix", str(folder), "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
            _npm("install", *npm_flags, *BROWSER, timeout=240)
            if named is None:
                _unpack_chromium(folder)
            (folder / "installed").touch()
    if named is not None:
        return folder, {"CHROMIUM": named}
    return folder, {"CHROMIUM": str(folder / "chromium"), "LD_LIBRARY_PATH": str(folder / "al2023" / "lib")}


def _unpack_chromium(folder: Path) -> None:
    """The package unpacks itself below $TMPDIR, with the libraries it needs where it takes the machine for Amazon's."""
    node = shutil.which("node")
    if node is None:
        raise Unavailable("node is not installed, so Chromium can't be unpacked")
    code = "import('@sparticuz/chromium').then(found => found.default.executablePath())"
    variables = {**os.environ, "TMPDIR": str(folder), "AWS_EXECUTION_ENV": "AWS_Lambda_nodejs22.x"}
    command = [node, "--input-type=module", "--eval", code]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0 or not (folder / "chromium").exists():
        raise Unavailable(f"Chromium could not be unpacked: {done.stderr.strip()[-300:]}")


def _link_native_binary(package: Path) -> None:
    """Run the package's own install step by hand: whether npm runs it differs between npm versions and settings."""
    node = shutil.which("node")
    if node is None:
        raise Unavailable("node is not installed, so Claude Code's install step can't run")
    done = subprocess.run([node, "install.cjs"], cwd=package, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise Unavailable(f"Claude Code's install step failed: {done.stderr.strip()[-300:]}")


@functools.cache
def uv() -> Path:
    """The uv that starts the plugin's server: `$UV` (the Makefile and uv itself export it) or the one on PATH."""
    found = os.environ.get("UV") or shutil.which("uv")
    if found is None:
        raise Unavailable("uv is neither on PATH nor named by $UV, so the plugin's server can't be started")
    return Path(found)


@functools.cache
def uv_cache_with_dependencies(project: Path) -> Path:
    """uv's cache folder, filled with all that the server's first start fetches, so that sessions can run offline."""
    environment = cache_folder() / "warm-environment"
    with _locked(cache_folder() / "warm-environment.lock"):
        command = [str(uv()), "sync", "--project", str(project), "--frozen", "--no-dev", "--quiet"]
        variables = {**os.environ, "UV_PROJECT_ENVIRONMENT": str(environment), "UV_PYTHON": python()}
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=variables, check=False)
        if done.returncode != 0:
            raise Unavailable(f"uv could not fetch the server's dependencies: {done.stderr.strip()[-300:]}")
    folder = subprocess.run([str(uv()), "cache", "dir"], capture_output=True, text=True, check=True, timeout=30)
    return Path(folder.stdout.strip())


def python() -> str:
    """The interpreter that this environment was made from, for the environments that uv makes in the tests."""
    return str(Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}")
