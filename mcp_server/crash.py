"""What is said of an error where it leaves this package: a tool's answer, a terminal. Of an unforeseen one not its own text."""

from __future__ import annotations

import errno
import os
import traceback

from mcp_server import settings
from mcp_server.datasets.secrets import redact
from mcp_server.errors import PathError, UserError
from mcp_server.jobs.files import write_atomic

LAST_ERROR = "last-error.txt"  # in the state folder


def told(error: Exception) -> UserError:
    """A UserError as it is, the system's refusal as a sentence, of anything else its type and where the traceback is."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and error.strerror:
        return _refused(error)
    # Its text may quote rows or whatever else it met.
    return UserError(f"{type(error).__name__}, which nobody foresaw: a fault of mlx-training; {_kept(error)}")


def _refused(error: OSError) -> PathError:
    names = (error.filename, error.filename2)
    paths = [os.fsdecode(name) for name in names if isinstance(name, str | bytes | os.PathLike)]
    if isinstance(error, PermissionError):
        advice = "check its permissions (on a Mac also System Settings, Privacy & Security, Files and Folders)"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "free disk space"
    else:
        advice = "see to that and call again"
    return PathError(f"{' to '.join(paths) or 'the system refused'}: {error.strerror}; {advice}")


def _kept(error: Exception) -> str:
    """Where the traceback is. The last one is kept: a fault comes again, and a file that grows would be one more."""
    file = settings.home() / LAST_ERROR
    text = redact("".join(traceback.format_exception(error)))
    try:
        settings.home().mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(file, text.encode(errors="replace"))
    except OSError as failure:
        return f"the traceback could not be kept in {file}: {failure.strerror}"
    return f"report it with the traceback in {file}"
