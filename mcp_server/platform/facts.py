"""What this machine is. One function reads it; one seam lets tests and people replace what was read.

``$MLX_TRAINING_FACTS`` names a JSON file whose keys replace the facts of the same name, so that the answer for every
platform can be tried on any machine, in the server and in the hooks alike. Standard library alone, no heavy imports.
"""

from __future__ import annotations

import json
import os

MINIMUM_MACOS = (14, 0)  # mlx's wheels are built for macOS 14 and later

# Files and variables by which containers are known. Rosetta and containers both hide Metal.
_CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")
_CONTAINER_MARKS = ("docker", "containerd", "kubepods", "libpod", "lxc")


def collect() -> dict[str, object]:
    """The facts, by name. A fact that can't be read is None; nothing here raises.

    ``system`` ("Darwin", "Linux"), ``machine`` ("arm64", "x86_64"), ``translated`` (under Rosetta), ``container``,
    ``macos`` ("26.1"), ``chip`` ("Apple M3 Max"), ``memory_bytes``, ``metal`` (a Metal GPU is reachable), ``cuda``,
    ``gpus`` (how many NVIDIA GPUs).
    """
    replaced = _replacements()
    kernel = os.uname()
    system = str(replaced.get("system", kernel.sysname))
    darwin = system == "Darwin"
    facts: dict[str, object] = {"system": system, "machine": kernel.machine}
    readers = {
        "translated": lambda: darwin and sysctl("sysctl.proc_translated") == "1",
        "container": lambda: not darwin and _in_container(),
        "macos": lambda: sysctl("kern.osproductversion") if darwin else None,
        "chip": lambda: sysctl("machdep.cpu.brand_string") if darwin else _linux_cpu(),
        "memory_bytes": _memory_bytes,
        "cuda": lambda: os.path.exists("/dev/nvidiactl"),
        "gpus": lambda: None if darwin else len([*os.scandir("/proc/driver/nvidia/gpus")]),
    }
    for name, read in readers.items():
        # A replaced fact is not read at all: the seam may speak of another system.
        if name not in replaced:
            try:
                facts[name] = read()
            except (OSError, ValueError):
                facts[name] = None
    facts.update(replaced)
    if "metal" not in facts:
        facts["metal"] = bool(
            darwin and facts["machine"] == "arm64" and not facts["translated"] and not facts["container"]
        )
    return facts


def _replacements() -> dict[str, object]:
    path = os.environ.get("MLX_TRAINING_FACTS")
    if not path:
        return {}
    try:
        with open(path, "rb") as file:
            value = json.load(file)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def sysctl(name: str) -> str | None:
    """The value of a macOS kernel variable as text; None where it does not exist."""
    import subprocess  # here because the hooks load this module and rarely need it

    try:
        done = subprocess.run(["/usr/sbin/sysctl", "-n", name], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _memory_bytes() -> int | None:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _in_container() -> bool:
    named = os.environ.get("container")  # noqa: SIM112 (systemd-nspawn and podman spell it so)
    if named or any(os.path.exists(path) for path in _CONTAINER_FILES):
        return True
    try:
        with open("/proc/1/cgroup", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return False
    return any(mark in text for mark in _CONTAINER_MARKS)


def _linux_cpu() -> str | None:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return None


def backend(facts: dict[str, object]) -> tuple[str | None, list[str]]:
    """Which of ``settings.PLATFORMS`` this machine is, and what speaks against it, each reason with its remedy.

    None when MLX can't run here at all. Linux in a container keeps its name: CI may allow it by name in the settings.
    """
    system, machine = facts.get("system"), facts.get("machine")
    reasons: list[str] = []
    if facts.get("container"):
        # On a Mac this is what Docker looks like from inside: a Linux without Metal.
        reasons.append(
            "this is inside a container, where Metal can't be reached; run natively on macOS, never in Docker"
        )
    if system == "Darwin":
        if facts.get("translated"):
            reasons.append(
                "this Python is an x86 build running under Rosetta, which hides Metal; "
                "install a native arm64 Python (python.org, Homebrew in /opt/homebrew, or uv) "
                "and start Claude Code from a native terminal"
            )
        elif machine != "arm64":
            reasons.append(
                f"this is an Intel Mac ({machine}); MLX needs Apple Silicon (M1 or later, `uname -m` prints arm64)"
            )
        version = _version(facts.get("macos"))
        if version is not None and version < MINIMUM_MACOS:
            reasons.append(f"macOS {facts.get('macos')} is too old; mlx needs macOS 14.0 or later; update macOS")
        if not reasons and facts.get("metal") is False:
            reasons.append(
                "no Metal GPU is reachable (a virtual machine or a restricted session?); run natively on the Mac"
            )
        return (None, reasons) if reasons else ("apple-silicon", [])
    if system == "Linux":
        return ("linux-cuda" if facts.get("cuda") else "linux-cpu"), reasons
    return None, [f"{system} is not supported; MLX training runs natively on a Mac with Apple Silicon"]


def _version(text: object) -> tuple[int, ...] | None:
    try:
        return tuple(int(part) for part in str(text).split(".")[:2])
    except ValueError:
        return None
