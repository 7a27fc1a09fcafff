"""At the start of a session: find the real interpreter once, and compile the gate, so that no later call pays for it."""

from __future__ import annotations

import posix
import sys

from . import paths, shared


def interpreter() -> str:
    """The interpreter itself behind shims, links and virtual environments; empty when it can't be told."""
    base = getattr(sys, "_base_executable", "") or sys.executable or ""
    found = paths.real(base) if base else ""
    return found if paths.is_file(found) else ""


def write_status_line(folder: str, python: str) -> None:
    """The command that people name in their settings: its path stays when an update moves the plugin's root."""
    root = __file__.rpartition("/hooks/")[0]
    words = [
        python,
        "-X",
        "pycache_prefix=" + paths.join(folder, "bytecode"),
        "-I",
        "-S",
        root + "/hooks/status_line.py",
    ]
    quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in words)
    text = "#!/bin/sh\n# Written at each start of a session by mlx-training.\nexec " + quoted + "\n"
    file = paths.join(folder, "status-line")
    if paths.read_text(file) != text and paths.replace_text(file, text):
        posix.chmod(file, 0o755)


def prepare() -> None:
    """Write `interpreter` and the status line's command into the plugin's data folder and the gate's byte code, there too (`hooks/run` sets the prefix). Never raises."""
    folder = paths.env("CLAUDE_PLUGIN_DATA")
    found = interpreter()
    if folder and found:
        paths.replace_text(paths.join(folder, "interpreter"), found + "\n")
        write_status_line(folder, found)
    paths.replace_text(paths.join(shared.data_folder(), "platform"), "")  # the machine is asked anew when it matters
    import compileall

    compileall.compile_dir(__file__.rpartition("/")[0], quiet=2, legacy=False)
