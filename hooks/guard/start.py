"""At the start of a session: find the real interpreter once, and compile the gate, so that no later call pays for it."""

from __future__ import annotations

import sys

from . import paths


def interpreter() -> str:
    """The interpreter itself behind shims, links and virtual environments; empty when it can't be told."""
    base = getattr(sys, "_base_executable", "") or sys.executable or ""
    found = paths.real(base) if base else ""
    return found if paths.is_file(found) else ""


def prepare() -> None:
    """Write `interpreter` into the plugin's data folder and the byte code beside the sources. Never raises."""
    import posix

    folder = paths.env("CLAUDE_PLUGIN_DATA")
    found = interpreter()
    if folder and found:
        try:
            if not paths.is_dir(folder):
                posix.mkdir(folder, 0o700)
            temporary = paths.join(folder, f".interpreter.{posix.getpid()}")
            fd = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o600)
            try:
                posix.write(fd, (found + "\n").encode())
            finally:
                posix.close(fd)
            posix.rename(temporary, paths.join(folder, "interpreter"))
        except OSError:
            pass
    import compileall

    compileall.compile_dir(__file__.rpartition("/")[0], quiet=2, legacy=False)
