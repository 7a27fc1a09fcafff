"""At the start of a session: find the real interpreter once, and compile the gate, so that no later call pays for it."""

from __future__ import annotations

import sys

from . import paths, shared


def interpreter() -> str:
    """The interpreter itself behind shims, links and virtual environments; empty when it can't be told."""
    base = getattr(sys, "_base_executable", "") or sys.executable or ""
    found = paths.real(base) if base else ""
    return found if paths.is_file(found) else ""


def prepare() -> None:
    """Write `interpreter` into the plugin's data folder and the gate's byte code, there too (`hooks/run` sets the prefix). Never raises."""
    folder = paths.env("CLAUDE_PLUGIN_DATA")
    found = interpreter()
    if folder and found:
        paths.replace_text(paths.join(folder, "interpreter"), found + "\n")
    paths.replace_text(paths.join(shared.data_folder(), "platform"), "")  # the machine is asked anew when it matters
    import compileall

    compileall.compile_dir(__file__.rpartition("/")[0], quiet=2, legacy=False)
