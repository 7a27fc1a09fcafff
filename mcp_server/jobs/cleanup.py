"""What a job leaves behind when it ends early: nothing half made."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from mcp_server.jobs.store import JobSpec

RESERVATION = "provenance.json"


def clean(spec: JobSpec) -> None:
    """Remove the job's scratch folder, and its reserved output folder if nothing was ever put there."""
    if spec.scratch is not None:
        shutil.rmtree(spec.scratch, ignore_errors=True)
    if spec.reserved is not None:
        folder = Path(spec.reserved)
        with contextlib.suppress(OSError):
            if {entry.name for entry in folder.iterdir()} <= {RESERVATION}:
                (folder / RESERVATION).unlink(missing_ok=True)
                folder.rmdir()
