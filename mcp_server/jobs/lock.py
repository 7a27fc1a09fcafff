"""The machine's GPU lock: one heavy job at a time. Standard library alone; the hooks read it too.

``gpu.lock`` is locked with ``flock`` exactly while a job runs. The runner takes the lock and its worker inherits
the open file, so the lock lives as long as either of them and can never go stale. The content says who holds it.
"""

from __future__ import annotations

import fcntl
import json
import os


def acquire(path: str) -> int | None:
    """Take the lock; the open descriptor, or None while somebody else holds it. Closing the descriptor frees it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def write_holder(descriptor: int, holder: dict[str, object]) -> None:
    """Say who holds the lock. In place, since a rename would leave the lock on the old file.

    The new text is padded to the old length and written in one call, so that a reader never sees half of it. A full disk
    may leave the old text: the lock itself is what counts.
    """
    data = json.dumps(holder).encode()
    try:
        os.pwrite(descriptor, data.ljust(os.fstat(descriptor).st_size), 0)
        os.ftruncate(descriptor, len(data))
    except OSError:
        return


def is_held(path: str) -> bool:
    """Whether a living process holds a lock on the file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _held(descriptor)
    finally:
        os.close(descriptor)


def read_holder(path: str) -> dict[str, object] | None:
    """Who holds the lock: None when nobody does, an empty dict when the holder has not said yet."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not _held(descriptor):
            return None
        try:
            holder = json.loads(os.pread(descriptor, 65536, 0))
        except ValueError:
            return {}
        return holder if isinstance(holder, dict) else {}
    finally:
        os.close(descriptor)


def _held(descriptor: int) -> bool:
    # A shared lock that is taken for a moment and given back: it fails exactly while somebody holds the lock.
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
