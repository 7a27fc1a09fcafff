"""The environment with mlx-lm that jobs run in, made by uv from this plugin's own lock file.

``<data>/mlx`` is a link to ``<data>/mlx-<job id>``: a new environment is built beside the old one and the link is turned
in one step when it is whole, so that no moment has a broken one, and a job that runs in the old one keeps its files.
``<data>`` is ``$CLAUDE_PLUGIN_DATA``, or the state folder where that is not set.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from pydantic import BaseModel, Field

from mcp_server.errors import PlatformError
from mcp_server.jobs import service, store
from mcp_server.jobs.files import read_json
from mcp_server.jobs.store import JobFolder
from mcp_server.platform import interpreter
from mcp_server.platform.check import require_platform

PLUGIN = Path(__file__).resolve().parents[2]
MARK = "mlx-training.json"  # in an environment: what it was made from; written last
_NEEDED_BYTES = 3 * 10**9
_UV_PLACES = ("~/.local/bin/uv", "~/.cargo/bin/uv", "/opt/homebrew/bin/uv", "/usr/local/bin/uv")
_WHOLE = "import mlx.core, mlx_lm.tuner.trainer, pydantic, psutil"


class EnvironmentOptions(BaseModel):
    """What the job installs, from where, to where."""

    project: str = Field(description="Folder with pyproject.toml and uv.lock")
    extra: str = Field(description="The optional dependencies to install: mlx, or cuda")
    target: str = Field(description="The link that jobs look for")
    uv: str
    imports: str = Field(default=_WHOLE, description="Python that only runs in a whole environment")


class EnvironmentResult(BaseModel):
    """A whole environment."""

    python: str
    versions: dict[str, str] = Field(default_factory=dict, description="Installed packages that matter here")
    made: bool = Field(description="False when it was there and whole")
    note: str


def start_environment(
    *, reinstall: bool = False, project: Path = PLUGIN, imports: str = _WHOLE
) -> JobFolder | EnvironmentResult:
    """Start the job that makes or repairs the environment; or the result, when jobs already have a whole one.

    Raises PlatformError when it can't be made here, or when jobs run in another and would not use it.
    """
    backend = require_platform()
    target = interpreter.prepared()
    python = interpreter.find()  # raises when MLX_TRAINING_PYTHON is wrong: then no environment of ours would be used
    if python is not None and not reinstall:
        present = _already(python, target, project, imports)
        if present is not None:
            return present
    if python is not None and not interpreter.is_ours(python):
        broken = "" if reinstall else ", which has mlx-lm but can't import it,"
        raise PlatformError(
            f"jobs run in {python}{broken} and would not use a new environment; {interpreter.renewal(backend)}"
        )
    extra = "cuda" if backend == "linux-cuda" else "mlx"
    for name in ("pyproject.toml", "uv.lock"):
        if not (project / name).is_file():
            raise PlatformError(
                f"{project} has no {name}: this copy of mlx-training was installed as a package, not as the plugin; "
                f"install MLX beside it: {interpreter.install('mlx-lm')}"
            )
    uv = find_uv()
    _check_disk(target)
    job_id = store.new_id("environment")
    options = EnvironmentOptions(project=str(project), extra=extra, target=str(target), uv=str(uv), imports=imports)
    scratch = target.parent / f".mlx-{job_id.removeprefix('environment-')}.partial"
    return service.start("environment", options, job_id=job_id, scratch=scratch, python=Path(sys.executable))


def _already(python: Path, target: Path, project: Path, imports: str) -> EnvironmentResult | None:
    """The environment of ``python``, in which jobs run, if it is whole and not an outdated one of ours."""
    ours = interpreter.is_ours(python)
    mark = read_json(target / MARK) if ours else None
    if ours and (mark is None or mark.get("lock") != lock_hash(project)):
        return None
    if not is_whole(python, imports):
        return None
    versions = {str(k): str(v) for k, v in ((mark or {}).get("versions") or {}).items()}
    return EnvironmentResult(
        python=str(python), versions=versions, made=False, note="jobs already have a whole environment; nothing to do"
    )


def is_whole(python: Path, imports: str = _WHOLE) -> bool:
    """Whether ``python`` can import what a job needs."""
    try:
        done = subprocess.run([str(python), "-c", imports], capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0


def lock_hash(project: Path) -> str | None:
    """SHA-256 of the lock file: an environment made from another one is out of date."""
    try:
        return hashlib.sha256((project / "uv.lock").read_bytes()).hexdigest()
    except OSError:
        return None


def find_uv() -> Path:
    """The uv program. Raises PlatformError that says how to get it."""
    named = os.environ.get("UV")  # set by uv itself for what it runs
    found = named if named and os.access(named, os.X_OK) else shutil.which("uv")
    if found is None:
        found = next((place for place in map(os.path.expanduser, _UV_PLACES) if os.access(place, os.X_OK)), None)
    if found is None:
        raise PlatformError(
            "uv was not found, and it makes the MLX environment; install it with `brew install uv` or "
            "`curl -LsSf https://astral.sh/uv/install.sh | sh`, then call prepare_environment again"
        )
    return Path(found)


def _check_disk(target: Path) -> None:
    existing = next(parent for parent in target.parents if parent.is_dir())
    if not os.access(existing, os.W_OK):
        raise PlatformError(f"{existing} can't be written; set MLX_TRAINING_HOME to a folder that can")
    free = shutil.disk_usage(existing).free
    if free < _NEEDED_BYTES:
        raise PlatformError(
            f"the MLX environment needs about {_NEEDED_BYTES / 1e9:.0f} GB and {free / 1e9:.1f} GB are free at "
            f"{existing}; free some space and call again"
        )


def unused(target: Path) -> list[Path]:
    """Earlier environments of ours beside ``target`` that no live job runs in."""
    used = {target.resolve()}
    for folder in store.all_folders():
        state = folder.state()
        if not state.finished:
            used.add(Path(folder.spec().python).parent.parent.resolve())
    return [path for path in target.parent.glob("mlx-*") if (path / MARK).exists() and path.resolve() not in used]
