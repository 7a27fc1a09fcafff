"""The one seam to `mcp_server`: rules that the tools and the hooks share live there, in modules of the standard library.

`tests/guard/test_shared.py` names those modules and keeps them light.
"""

from __future__ import annotations

import sys

from . import paths

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from typing import Any

    from mcp_server.datasets.rows import Problem


def _root() -> None:
    root = __file__.rpartition("/hooks/")[0]
    if root not in sys.path:
        sys.path.append(root)


def home() -> str:
    """The state folder, as `mcp_server.settings.home` reads it (which imports pathlib, so it isn't used here)."""
    found = paths.env("MLX_TRAINING_HOME") or "~/.mlx-training"
    return paths.home() + found[1:] if found[:1] == "~" else found


def lock_holder() -> dict[str, Any] | None:
    """Who holds the GPU lock; None when nobody does."""
    path = paths.join(home(), "gpu.lock")
    if not paths.exists(path):
        return None
    _root()
    from mcp_server.jobs.lock import read_holder

    return read_holder(path)


def check_line(text: str, expect: str | None = None) -> tuple[str | None, list[Problem]]:
    """What is wrong with one line of a data file."""
    _root()
    from mcp_server.datasets.rows import check_line as check

    return check(text, expect)


def data_folder() -> str:
    """Where the hooks keep what they write: the plugin's data folder, else the state folder."""
    return paths.env("CLAUDE_PLUGIN_DATA") or home()


def platform_reasons(allowed: list[str]) -> list[str]:
    """Why MLX work may not run on this machine; empty when it may. `allowed`: platforms that the user's settings add.

    Asking the system costs several processes on a Mac, so the answer is kept; SessionStart asks anew.
    """
    seam = paths.env("MLX_TRAINING_FACTS")
    key = "\t".join(
        (paths.env("MLX_TRAINING_PLATFORMS"), ",".join(allowed), seam, str(paths.changed(seam)) if seam else "")
    )
    file = paths.join(data_folder(), "platform")
    lines = (paths.read_text(file) or "").split("\n")
    if lines[0] == key and len(lines) > 1:
        return [line for line in lines[1:] if line]
    reasons = ask_platform(allowed)
    paths.replace_text(file, "\n".join([key, *reasons]) + "\n")
    return reasons


def ask_platform(allowed: list[str]) -> list[str]:
    """`platform_reasons`, from the machine itself."""
    _root()
    from mcp_server.platform import facts

    found = facts.collect()
    name, reasons = facts.backend(found)
    names = [each.strip() for each in (paths.env("MLX_TRAINING_PLATFORMS") or "apple-silicon").split(",")] + allowed
    if name in names:
        return reasons if name == "apple-silicon" else []
    if name is not None and not reasons:
        reasons = [f"{name} is not among the allowed platforms ({', '.join(dict.fromkeys(names))})"]
    return reasons
