"""Readings of the machine that cost a process or a moment: GPU cores, power, heat, memory now. Facts stay in ``facts``.

Every reader has a parser of text alone, so that odd output of any macOS can be tried anywhere. A reading that can't be
had is None. ``$MLX_TRAINING_FACTS`` replaces any of them by name, as it replaces the facts.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from mcp_server.platform import facts as machine

_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_PRESSURE = {1: "normal", 2: "warning", 4: "critical"}


def collect(facts: Mapping[str, object]) -> dict[str, Any]:
    """The readings of the machine that ``facts`` describes; never raises.

    ``gpu_cores``; ``wired_limit_bytes`` (set by hand, else None); ``working_set_bytes`` (what Metal advises one process to
    use, where a fact file names it); ``power`` ("AC Power", "Battery Power"), ``battery_percent``, ``low_power_mode``;
    ``speed_limit_percent`` (under 100: slowed down by heat) and ``thermal_warning``; ``available_bytes``,
    ``swap_used_bytes``, ``pressure`` ("normal", "warning", "critical"); ``memory_limit_bytes`` (a container's);
    ``gpu_memory_bytes`` and ``gpu_free_bytes`` (NVIDIA's).
    """
    darwin = facts.get("system") == "Darwin"
    nothing: Callable[[], dict[str, Any]] = dict
    found: dict[str, Any] = {}
    readers: dict[tuple[str, ...], Callable[[], dict[str, Any]]] = {
        ("available_bytes", "swap_used_bytes"): _memory_now,
        ("gpu_cores",): (lambda: {"gpu_cores": parse_gpu_cores(_run(_IOREG))}) if darwin else nothing,
        ("wired_limit_bytes",): (lambda: {"wired_limit_bytes": parse_megabytes(machine.sysctl("iogpu.wired_limit_mb"))})
        if darwin
        else nothing,
        ("power", "battery_percent"): (lambda: parse_power(_run(("pmset", "-g", "batt")))) if darwin else nothing,
        ("low_power_mode",): (lambda: {"low_power_mode": parse_low_power(_run(("pmset", "-g")))})
        if darwin
        else nothing,
        ("speed_limit_percent", "thermal_warning"): (lambda: parse_thermal(_run(("pmset", "-g", "therm"))))
        if darwin
        else nothing,
        ("pressure",): lambda: {"pressure": _pressure(darwin)},
        ("memory_limit_bytes",): nothing if darwin else lambda: {"memory_limit_bytes": _cgroup_limit()},
        ("gpu_memory_bytes", "gpu_free_bytes"): _nvidia if facts.get("cuda") and not darwin else nothing,
    }
    for names, read in readers.items():
        if all(name in facts for name in names):
            continue
        try:
            found |= read()
        except (OSError, ValueError, psutil.Error):
            continue
    return found | {name: facts[name] for name in _NAMES if name in facts}


_IOREG = ("ioreg", "-rc", "AGXAccelerator", "-d1")
_NAMES = (
    "gpu_cores",
    "wired_limit_bytes",
    "working_set_bytes",
    "power",
    "battery_percent",
    "low_power_mode",
    "speed_limit_percent",
    "thermal_warning",
    "available_bytes",
    "swap_used_bytes",
    "pressure",
    "memory_limit_bytes",
    "gpu_memory_bytes",
    "gpu_free_bytes",
)


def _run(command: tuple[str, ...]) -> str:
    """What ``command`` prints; empty when it fails or is not there."""
    try:
        done = subprocess.run(command, capture_output=True, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def parse_gpu_cores(text: str) -> int | None:
    """From ``ioreg -rc AGXAccelerator``: ``"gpu-core-count" = 10``."""
    found = re.search(r'"gpu-core-count"\s*=\s*(\d+)', text)
    return int(found[1]) if found else None


def parse_megabytes(text: str | None) -> int | None:
    """``iogpu.wired_limit_mb``: 0 means that nobody has set it."""
    found = re.fullmatch(r"\s*(\d+)\s*", text or "")
    return int(found[1]) * 1048576 if found and int(found[1]) > 0 else None


def parse_power(text: str) -> dict[str, Any]:
    """From ``pmset -g batt``: "Now drawing from 'AC Power'" and, with a battery, "85%; charging"."""
    source = re.search(r"drawing from '([^']+)'", text)
    percent = re.search(r"(\d{1,3})%", text)
    return {"power": source[1] if source else None, "battery_percent": int(percent[1]) if percent else None}


def parse_low_power(text: str) -> bool | None:
    """From ``pmset -g``: "lowpowermode 1"; the line is missing on Macs without that mode."""
    found = re.search(r"^\s*(?:lowpowermode|powermode)\s+(\d)", text, re.MULTILINE)
    return found[1] == "1" if found else None


def parse_thermal(text: str) -> dict[str, Any]:
    """From ``pmset -g therm``: "CPU_Speed_Limit = 100", or notes that nothing has been recorded."""
    limit = re.search(r"CPU_Speed_Limit\s*=\s*(\d+)", text)
    level = re.search(r"thermal warning level\s*(?:set to|=|:)\s*(\d+)", text, re.IGNORECASE)
    calm = re.search(r"no thermal warning", text, re.IGNORECASE)
    return {
        "speed_limit_percent": int(limit[1]) if limit else None,
        "thermal_warning": int(level[1]) > 0 if level else (False if calm else None),
    }


def parse_pressure_level(text: str | None) -> str | None:
    """``kern.memorystatus_vm_pressure_level``: 1 normal, 2 warning, 4 critical."""
    found = re.fullmatch(r"\s*(\d+)\s*", text or "")
    return _PRESSURE.get(int(found[1])) if found else None


def parse_stall(text: str) -> str | None:
    """Linux's ``/proc/pressure/memory``: the share of the last 10 s in which something waited for memory."""
    found = re.search(r"^some avg10=([\d.]+)", text, re.MULTILINE)
    if not found:
        return None
    share = float(found[1])
    return "critical" if share >= 20 else "warning" if share >= 2 else "normal"


def parse_nvidia(text: str) -> dict[str, Any]:
    """From nvidia-smi's CSV of total and free memory in MiB, the first GPU's line."""
    found = re.match(r"\s*(\d+)\s*,\s*(\d+)\s*$", text.splitlines()[0] if text.strip() else "")
    if not found:
        return {}
    return {"gpu_memory_bytes": int(found[1]) * 1048576, "gpu_free_bytes": int(found[2]) * 1048576}


def _memory_now() -> dict[str, Any]:
    virtual, swap = psutil.virtual_memory(), psutil.swap_memory()
    return {"available_bytes": virtual.available, "swap_used_bytes": swap.used}


def _pressure(darwin: bool) -> str | None:
    if darwin:
        return parse_pressure_level(machine.sysctl("kern.memorystatus_vm_pressure_level"))
    return parse_stall(Path("/proc/pressure/memory").read_text(encoding="utf-8"))


def _cgroup_limit() -> int | None:
    """The memory a container may use, where it is less than the machine's."""
    for name in _CGROUP_LIMITS:
        try:
            text = Path(name).read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < psutil.virtual_memory().total:
            return int(text)
    return None


def _nvidia() -> dict[str, Any]:
    """Of the GPU that MLX takes: the first that CUDA is shown (an index or a UUID, nvidia-smi knows both)."""
    command = ("nvidia-smi", "--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits")
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0].strip()
    return parse_nvidia(_run((*command, f"--id={chosen}") if chosen else command))
