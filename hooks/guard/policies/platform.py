"""MLX runs natively on Apple Silicon: never in a container or virtual machine, never under Rosetta."""

from __future__ import annotations

from guard import shared
from guard.verdict import DENY, Finding, said

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from guard.world import World

RULE = "platform"
NATIVE = "run the same command natively on the Mac, without the container; `mlx-training doctor` says whether this machine can"


def judge(world: World) -> list[Finding]:
    findings = []
    scene = world.scene
    for tool, what in scene.inside:
        findings.append(inside(tool, what))
    local = []
    for work in scene.works:
        place, _, tool = work.place.partition(":")
        if place == "container":
            findings.append(inside(tool, work.by))
        elif place == "rosetta":
            findings.append(Finding(
                DENY, RULE, f"{said(work.by)} would run MLX as x86_64 under Rosetta", "Rosetta hides Metal, so MLX can't work",
                "leave out `arch -x86_64` and use a native arm64 Python; `uname -m` must print arm64",
            ))  # fmt: skip
        else:
            local.append(work)
    if local and not findings:
        reasons = shared.platform_reasons(world.settings.platforms)
        if reasons:
            findings.append(Finding(
                DENY, RULE, f"{said(local[0].by)} would run MLX here, but {reasons[0]}",
                "MLX fails or crawls where it isn't supported", "`mlx-training doctor` lists what to do about it",
            ))  # fmt: skip
    return findings[:2]


def inside(tool: str, what: str) -> Finding:
    return Finding(
        DENY, RULE, f"MLX work inside {tool}: {said(what)}",
        "a container or virtual machine has no Metal, so MLX fails there or runs on the CPU of a Linux guest", NATIVE,
    )  # fmt: skip
