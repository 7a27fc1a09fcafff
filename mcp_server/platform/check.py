"""Whether MLX jobs can run here: one verdict, and a remedy for everything that fails."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from mcp_server import settings
from mcp_server.errors import PlatformError
from mcp_server.platform import facts as machine
from mcp_server.platform import interpreter

_PROBE = """
import importlib.metadata, json, sys
found = {"python": sys.version.split()[0]}
for name in ("mlx", "mlx-lm"):
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found[name] = None
if found["mlx"]:
    import mlx.core as mx
    found["device"] = str(mx.default_device().type).removeprefix("DeviceType.")
    found["device_info"] = {k: v for k, v in mx.device_info().items() if isinstance(v, (int, str))}
print(json.dumps(found))
"""


class Check(BaseModel):
    """One line of the answer."""

    name: str
    status: Literal["ok", "warning", "failed"]
    value: str = Field(description="What was found")
    remedy: str | None = Field(default=None, description="What to do about it")


class PlatformReport(BaseModel):
    """Can this machine train, and if not, why."""

    verdict: Literal["ready", "ready with warnings", "not ready"]
    summary: str
    backend: str | None = Field(
        default=None, description="apple-silicon, linux-cpu or linux-cuda; null where MLX can't run"
    )
    memory_gb: float | None = Field(
        default=None, description="Physical memory, GB (1e9 bytes), shared by CPU and GPU on a Mac"
    )
    recommended_working_set_gb: float | None = Field(
        default=None, description="What Metal advises one process to use, GB"
    )
    checks: list[Check]


def check_platform() -> PlatformReport:
    """Read the machine and judge it. Never raises for what it finds."""
    facts = machine.collect()
    backend, reasons = refusal(facts)
    checks = [_machine_check(facts, backend, reasons)]
    memory = facts.get("memory_bytes")
    memory_gb = round(memory / 1e9, 1) if isinstance(memory, int) else None
    checks.append(_memory_check(memory_gb))
    checks.append(_disk_check(settings.home()))
    working_set: float | None = None
    if not reasons:
        found = probe()
        checks += _software_checks(found, backend)
        info = found.get("device_info")
        size = info.get("max_recommended_working_set_size") if isinstance(info, dict) else None
        working_set = round(size / 1e9, 1) if isinstance(size, int) else None
    failed = [check for check in checks if check.status == "failed"]
    warned = [check for check in checks if check.status == "warning"]
    verdict = "not ready" if failed else "ready with warnings" if warned else "ready"
    told = failed or warned
    summary = f"{verdict}: {backend or facts.get('system')}" + (
        "; " + "; ".join(f"{check.name}: {check.remedy or check.value}" for check in told) if told else ""
    )
    return PlatformReport(
        verdict=verdict,
        summary=summary,
        backend=backend,
        memory_gb=memory_gb,
        recommended_working_set_gb=working_set,
        checks=checks,
    )


def refusal(facts: dict[str, object]) -> tuple[str | None, list[str]]:
    """The back end and why MLX jobs are refused on this machine; no reasons when they may run."""
    backend, reasons = machine.backend(facts)
    allowed = settings.allowed_platforms()
    if backend in allowed:
        # Whoever allowed a Linux platform by name knows about the container (CI runs in one).
        return backend, [] if backend != "apple-silicon" else reasons
    if backend is not None:
        not_allowed = (
            f"{backend} is for development and CI and is not allowed here; on a Mac run natively, "
            f"on such a machine set MLX_TRAINING_PLATFORMS={backend}"
        )
        reasons = [*reasons, not_allowed]
    return backend, reasons


def require_platform() -> str:
    """The back end's name, or ``PlatformError`` with every reason why MLX jobs can't run here."""
    backend, reasons = refusal(machine.collect())
    if reasons or backend is None:
        raise PlatformError("MLX can't run here: " + "; ".join(reasons))
    return backend


def probe() -> dict[str, object]:
    """Versions and default device, asked of the interpreter that runs the jobs (this process never imports mlx).

    ``error`` says why it could not be asked.
    """
    try:
        python = interpreter.require()
        done = subprocess.run(
            [str(python), "-c", _PROBE],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            check=True,
        )
        value = json.loads(done.stdout)
    except PlatformError as error:
        return {"error": str(error)}
    except subprocess.CalledProcessError as error:
        return {"error": f"mlx does not load: {error.stderr.strip().splitlines()[-1:]}"}
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return {"error": f"the interpreter with mlx-lm could not be asked: {error}"}
    return value if isinstance(value, dict) else {}


def _machine_check(facts: dict[str, object], backend: str | None, reasons: list[str]) -> Check:
    seen = " ".join(str(facts[key]) for key in ("system", "macos", "machine", "chip") if facts.get(key))
    if reasons:
        return Check(name="machine", status="failed", value=seen, remedy="; ".join(reasons))
    if backend != "apple-silicon":
        return Check(
            name="machine",
            status="warning",
            value=seen,
            remedy=f"running MLX's {backend} build, as MLX_TRAINING_PLATFORMS allows; figures differ from a Mac's",
        )
    return Check(name="machine", status="ok", value=seen)


def _memory_check(memory_gb: float | None) -> Check:
    if memory_gb is None:
        return Check(name="memory", status="warning", value="unknown", remedy="memory could not be read; start small")
    if memory_gb < 8:
        return Check(
            name="memory",
            status="warning",
            value=f"{memory_gb} GB",
            remedy="under 8 GB: use a model of at most 1B parameters in 4 bits, batch_size 1, grad_checkpoint",
        )
    return Check(name="memory", status="ok", value=f"{memory_gb} GB")


def _disk_check(folder: Path) -> Check:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(existing).free / 1e9
    value = f"{free:.1f} GB free at {existing}"
    if not os.access(existing, os.W_OK):
        return Check(
            name="disk", status="failed", value=value, remedy=f"{existing} can't be written; set MLX_TRAINING_HOME"
        )
    if free < 5:
        return Check(name="disk", status="warning", value=value, remedy="models and checkpoints need room; free 5 GB")
    return Check(name="disk", status="ok", value=value)


def _software_checks(found: dict[str, object], backend: str | None) -> list[Check]:
    own = f"server Python {platform.python_version()}, mcp {importlib.metadata.version('mcp')}"
    if "error" in found:
        return [Check(name="mlx", status="failed", value=f"not usable ({own})", remedy=str(found["error"]))]
    missing = [name for name in ("mlx", "mlx-lm") if not found.get(name)]
    if missing:
        value = f"{' and '.join(missing)} not found ({own})"
        return [Check(name="mlx", status="failed", value=value, remedy=interpreter.INSTALL)]
    versions = f"mlx {found['mlx']}, mlx-lm {found['mlx-lm']}, Python {found['python']} ({own})"
    wanted = "cpu" if backend == "linux-cpu" else "gpu"
    device = found.get("device")
    checks = [Check(name="mlx", status="ok", value=versions)]
    if device == wanted:
        checks.append(Check(name="device", status="ok", value=str(device)))
    else:
        checks.append(
            Check(
                name="device",
                status="failed",
                value=f"default device is {device}, expected {wanted}",
                remedy="reinstall mlx natively for this machine: `uv sync --extra mlx --reinstall-package mlx`",
            )
        )
    return checks
