"""The lines of ``check_platform``'s answer: what was found, and the remedy for what fails."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from mcp_server.models.folder import hub_home, offline_by
from mcp_server.platform import chip, interpreter
from mcp_server.platform import facts as machine

_HUB_SECONDS = 4.0
_FREE_DISK = 5 * 10**9
Version = tuple[int, ...]


class KnownBad(BaseModel, frozen=True):
    """Versions of a package with a known fault in training: from ``first`` to below ``fixed`` (None: not fixed yet)."""

    package: str
    first: Version
    fixed: Version | None
    fault: str
    source: str

    def has(self, version: Version) -> bool:
        return self.first <= version and (self.fixed is None or version < self.fixed)


# From facts/mlx.md, section 7: what users met and maintainers said. Faults of every version so far that the worker works
# round (NaN from a masked row, resume without the optimizer) are not here: a warning nobody can act on is noise.
KNOWN_BAD = (
    KnownBad(
        package="mlx-lm",
        first=(0,),
        fixed=(0, 32, 2),
        fault="older than this plugin was made for: other arguments, and training results that lack fields",
        source="pyproject.toml: mlx-lm>=0.32.2",
    ),
    KnownBad(
        package="mlx",
        first=(0,),
        fixed=(0, 32),
        fault="older than this plugin was made for; NaN in training was traced to faults of old mlx releases",
        source="pyproject.toml: mlx>=0.32; ml-explore/mlx-lm#49, ml-explore/mlx-examples#620, #557",
    ),
)


class Check(BaseModel):
    """One line of the answer."""

    name: str
    status: Literal["ok", "warning", "failed"]
    value: str = Field(description="What was found")
    remedy: str | None = Field(default=None, description="What to do about it")


def machine_checks(
    facts: dict[str, object], found: dict[str, Any], backend: str | None, reasons: list[str]
) -> list[Check]:
    """System, processor and GPU; power and heat where they can be read."""
    seen = " ".join(str(facts[key]) for key in ("system", "macos", "machine", "chip") if facts.get(key))
    if reasons:
        return [Check(name="machine", status="failed", value=seen, remedy="; ".join(reasons))]
    if backend != "apple-silicon":
        remedy = f"running MLX's {backend} build, as MLX_TRAINING_PLATFORMS allows; figures differ from a Mac's"
        checks = [Check(name="machine", status="warning", value=seen, remedy=remedy)]
        if backend == "linux-cuda":
            memory = found.get("gpu_memory_bytes")
            checks.append(_line("gpu", f"{memory / 1e9:.0f} GB" if isinstance(memory, int) else "memory unknown"))
        return checks
    checks = [_line("machine", seen), _macos_check(facts), _chip_check(facts, found)]
    return checks + [check for check in (_power_check(found), _heat_check(found)) if check is not None]


def _line(name: str, value: str) -> Check:
    return Check(name=name, status="ok", value=value)


def _macos_check(facts: dict[str, object]) -> Check:
    minimum = ".".join(map(str, machine.MINIMUM_MACOS))
    version = facts.get("macos")
    if not version:
        return Check(
            name="macos",
            status="warning",
            value="version unknown",
            remedy=f"make sure that macOS is {minimum} or later (`sw_vers -productVersion`)",
        )
    return _line("macos", f"{version} (mlx needs {minimum} or later)")


def _chip_check(facts: dict[str, object], found: dict[str, Any]) -> Check:
    cores = found.get("gpu_cores")
    counted = f"{cores} GPU cores" if isinstance(cores, int) else "GPU cores unknown"
    known = chip.parse(facts.get("chip"))
    if known is None:
        return _line("chip", f"{facts.get('chip') or 'unknown'}, {counted}")
    variant = f" {known.variant}" if known.variant else ""
    return _line("chip", f"Apple M{known.generation}{variant} (generation {known.generation}), {counted}")


def _power_check(found: dict[str, Any]) -> Check | None:
    source, percent = found.get("power"), found.get("battery_percent")
    if not isinstance(source, str):
        return None
    value = source + (f", battery at {percent} %" if isinstance(percent, int) else "")
    if found.get("low_power_mode"):
        return Check(
            name="power",
            status="warning",
            value=f"{value}, Low Power Mode",
            remedy="turn Low Power Mode off (System Settings, Battery): it slows the GPU down",
        )
    if "Battery" in source:
        return Check(
            name="power", status="warning", value=value, remedy="plug the Mac in: on battery it is slower and may sleep"
        )
    return _line("power", value)


def _heat_check(found: dict[str, Any]) -> Check | None:
    limit, warned = found.get("speed_limit_percent"), found.get("thermal_warning")
    if isinstance(limit, int) and limit < 100:
        return Check(
            name="heat",
            status="warning",
            value=f"slowed down to {limit} %",
            remedy="the Mac is hot: let it cool and give it air before a long run",
        )
    if warned:
        return Check(
            name="heat", status="warning", value="thermal warning", remedy="let the Mac cool before a long run"
        )
    return _line("heat", "no thermal warning") if warned is False or limit == 100 else None


def memory_checks(
    facts: dict[str, object], found: dict[str, Any], backend: str | None, working_set: int | None
) -> list[Check]:
    """Memory in all, and on a Mac what one process may use of it."""
    total = facts.get("memory_bytes")
    if not isinstance(total, int) or total <= 0:
        return [Check(name="memory", status="warning", value="unknown", remedy="memory could not be read; start small")]
    text = f"{total / 1e9:.1f} GB"
    free = found.get("available_bytes")
    if isinstance(free, int):
        text += f", {free / 1e9:.1f} GB free now"
    limit = found.get("memory_limit_bytes")
    if isinstance(limit, int):
        text += f", of which this container may use {limit / 1e9:.1f} GB"
    small = "under 8 GB: use a model of at most 1B parameters in 4 bits, batch_size 1, grad_checkpoint"
    few = total < 7.5 * 10**9
    checks = [Check(name="memory", status="warning" if few else "ok", value=text, remedy=small if few else None)]
    if backend == "apple-silicon":
        checks.append(_working_set_check(total, found, working_set))
    pressure = found.get("pressure")
    if pressure in ("warning", "critical"):
        checks.append(
            Check(
                name="memory pressure",
                status="warning",
                value=str(pressure),
                remedy="close other programs before a training: macOS is already compressing or swapping memory"
                if facts.get("system") == "Darwin"
                else "close other programs before a training: processes are waiting for memory",
            )
        )
    return checks


def _working_set_check(total: int, found: dict[str, Any], working_set: int | None) -> Check:
    advised = f"{working_set / 1e9:.1f} GB" if working_set else "unknown"
    wired = found.get("wired_limit_bytes")
    if not isinstance(wired, int):
        return _line("gpu memory", f"{advised} recommended working set; wired limit is the system's own")
    value = f"{advised} recommended working set; iogpu.wired_limit_mb set to {wired / 1e9:.1f} GB"
    if wired > total - 4 * 10**9 and wired > 0.85 * total:
        return Check(
            name="gpu memory",
            status="warning",
            value=value,
            remedy="the limit leaves macOS too little and the desk may freeze: "
            f"`sudo sysctl iogpu.wired_limit_mb={max(int(0.8 * total / 2**20), 1)}` or 0 for the default",
        )
    return _line("gpu memory", value)


def disk_check(folder: Path) -> Check:
    """Room where the state folder is or will be."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        free = shutil.disk_usage(existing).free
    except OSError as error:
        return Check(name="disk", status="warning", value=f"{existing}: {error.strerror}", remedy="check that disk")
    value = f"{free / 1e9:.1f} GB free at {existing}"
    if not os.access(existing, os.W_OK):
        remedy = f"{existing} can't be written; set MLX_TRAINING_HOME"
        return Check(name="disk", status="failed", value=value, remedy=remedy)
    if free < _FREE_DISK:
        return Check(name="disk", status="warning", value=value, remedy="models and checkpoints need room; free 5 GB")
    return _line("disk", value)


def software_checks(found: dict[str, object], backend: str | None) -> list[Check]:
    """Python, mlx and mlx-lm of the interpreter that runs the jobs, their known faults, and the default device."""
    own = f"server Python {platform.python_version()}, mcp {importlib.metadata.version('mcp')}"
    if "error" in found:
        return [Check(name="mlx", status="failed", value=f"not usable ({own})", remedy=str(found["error"]))]
    missing = [name for name in ("mlx", "mlx-lm") if not found.get(name)]
    if missing:
        value = f"{' and '.join(missing)} not found ({own})"
        return [Check(name="mlx", status="failed", value=value, remedy=interpreter.INSTALL)]
    versions = f"mlx {found['mlx']}, mlx-lm {found['mlx-lm']}, Python {found.get('python')} ({own})"
    faults = known_faults({name: str(found[name]) for name in ("mlx", "mlx-lm")})
    checks = [
        Check(
            name="mlx",
            status="warning" if faults else "ok",
            value=versions,
            remedy=f"{'; '.join(faults)}; call prepare_environment with reinstall=true, or update them"
            if faults
            else None,
        )
    ]
    wanted = "cpu" if backend == "linux-cpu" else "gpu"
    device = found.get("device")
    if device == wanted:
        return [*checks, _line("device", str(device))]
    remedy = "reinstall mlx natively for this machine: `uv sync --extra mlx --reinstall-package mlx`"
    value = f"default device is {device}, expected {wanted}"
    return [*checks, Check(name="device", status="failed", value=value, remedy=remedy)]


def known_faults(versions: dict[str, str]) -> list[str]:
    """What is known to be wrong with these versions, with the source."""
    found: list[str] = []
    for bad in KNOWN_BAD:
        version = parse_version(versions.get(bad.package, ""))
        if version is not None and bad.has(version):
            fixed = f"fixed in {'.'.join(map(str, bad.fixed))}" if bad.fixed else "not fixed yet"
            found.append(f"{bad.package} {versions[bad.package]}: {bad.fault} ({fixed}; {bad.source})")
    return found


def parse_version(text: str) -> Version | None:
    """The numbers a version begins with: "0.32.4.dev1+g12" is (0, 32, 4)."""
    numbers: list[int] = []
    for part in text.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers) or None


def network_check() -> Check:
    """Whether the Hub answers, and whether somebody is logged in. Never the token, nor where it goes."""
    if variable := offline_by():
        check = login_check()
        return check.model_copy(update={"value": f"offline by {variable}: models must be on this disk; {check.value}"})
    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        host = urlsplit(endpoint).hostname or endpoint
    except ValueError:
        host = endpoint
    try:
        request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 (the user's own endpoint)
        with urllib.request.urlopen(request, timeout=_HUB_SECONDS):  # noqa: S310
            pass
    except urllib.error.HTTPError:
        pass  # it answered, if only with an error page: the network is there
    except (OSError, ValueError, HTTPException) as error:
        reason = " ".join(str(getattr(error, "reason", None) or error).split())[:120]
        return Check(
            name="hub",
            status="warning",
            value=f"{host} does not answer ({reason})",
            remedy="models can't be downloaded: check network and proxy, or use local folders with HF_HUB_OFFLINE=1",
        )
    return _line("hub", f"{host} answers; {login_check().value}")


def login_check() -> Check:
    """Whether there is a token, by the places huggingface_hub looks in. It is read by nobody here."""
    if any(os.environ.get(name) for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")):
        return _line("hub", "logged in (token from the environment)")
    file = Path(os.environ.get("HF_TOKEN_PATH") or hub_home() / "token").expanduser()
    try:
        logged_in = file.stat().st_size > 0
    except OSError:
        logged_in = False
    return _line("hub", "logged in (hf auth login)" if logged_in else "not logged in, which gated models need")
