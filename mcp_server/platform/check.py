"""Whether MLX jobs can run here: one verdict, and a remedy for everything that fails."""

from __future__ import annotations

import json
import subprocess
from typing import Any, Literal

from pydantic import BaseModel, Field

from mcp_server import settings
from mcp_server.errors import PlatformError
from mcp_server.platform import chip, interpreter, lines, readings
from mcp_server.platform import facts as machine
from mcp_server.platform.lines import Check

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


def check_platform(*, hub: bool = True) -> PlatformReport:
    """Read the machine and judge it. Never raises for what it finds. ``hub``: whether to try the Hugging Face Hub too."""
    facts = machine.collect()
    backend, reasons = refusal(facts)
    found = readings.collect(facts)
    asked = {} if reasons else probe()
    info = asked.get("device_info")
    told = info.get("max_recommended_working_set_size") if isinstance(info, dict) else None
    if isinstance(told, int) and "working_set_bytes" not in found:
        found["working_set_bytes"] = told
    total, working_set = _memory_bytes(facts, found, backend)
    checks = lines.machine_checks(facts, found, backend, reasons)
    checks += lines.memory_checks(facts, found, backend, working_set)
    checks.append(lines.disk_check(settings.home()))
    if not reasons:
        checks += lines.software_checks(asked, backend)
        checks.append(lines.network_check() if hub else lines.login_check())
    failed = [check for check in checks if check.status == "failed"]
    warned = [check for check in checks if check.status == "warning"]
    verdict = "not ready" if failed else "ready with warnings" if warned else "ready"
    named = failed or warned
    summary = f"{verdict}: {backend or facts.get('system')}" + (
        "; " + "; ".join(f"{check.name}: {check.remedy or check.value}" for check in named) if named else ""
    )
    return PlatformReport(
        verdict=verdict,
        summary=summary,
        backend=backend,
        memory_gb=round(total / 1e9, 1) if total else None,
        recommended_working_set_gb=round(working_set / 1e9, 1) if working_set else None,
        checks=checks,
    )


def _memory_bytes(
    facts: dict[str, object], found: dict[str, Any], backend: str | None
) -> tuple[int | None, int | None]:
    """Memory in all, and what Metal advises one process to use (asked, told by a fact file, or by rule)."""
    total = facts.get("memory_bytes")
    total = total if isinstance(total, int) and total > 0 else None
    if backend != "apple-silicon":
        return total, None
    told = found.get("working_set_bytes")
    return total, told if isinstance(told, int) else chip.working_set_bytes(total) if total else None


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
