"""The GPU lock and the line before it, between real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mcp_server.jobs import lock, queue
from mcp_server.jobs.process import ProcessIdentity

HOLD = "import sys\nfrom mcp_server.jobs import lock\nfd = lock.acquire(sys.argv[1])\nprint(fd, flush=True)\nsys.stdin.read()"
WAIT = "import sys\nfrom mcp_server.jobs import queue\nqueue.Ticket(sys.argv[1])\nprint(flush=True)\nsys.stdin.read()"


def start(code: str, argument: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", code, argument], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.fixture
def lock_file(home: Path) -> str:
    home.mkdir()
    return str(home / "gpu.lock")


def test_lock_is_held_exactly_while_its_holder_lives(lock_file: str):
    assert lock.read_holder(lock_file) is None
    holder = start(HOLD, lock_file)
    assert lock.read_holder(lock_file) == {}
    assert lock.acquire(lock_file) is None
    holder.kill()
    holder.wait()
    assert lock.read_holder(lock_file) is None
    descriptor = lock.acquire(lock_file)
    assert descriptor is not None
    os.close(descriptor)


def test_holder_says_who_it_is_and_a_shorter_text_leaves_no_rest(lock_file: str):
    descriptor = lock.acquire(lock_file)
    assert descriptor is not None
    lock.write_holder(descriptor, {"job_id": "a" * 200, "pid": 1})
    lock.write_holder(descriptor, {"job_id": "b"})
    assert lock.read_holder(lock_file) == {"job_id": "b"}
    os.close(descriptor)
    assert lock.read_holder(lock_file) is None


def test_line_is_first_come_first_served_and_forgets_the_dead(home: Path):
    first, second = start(WAIT, "one"), start(WAIT, "two")
    mine = queue.Ticket("three")
    assert queue.waiting() == ["one", "two", "three"]
    assert mine.ahead() == ["one", "two"]
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert mine.ahead() == ["two"]
    second.communicate("")
    assert mine.ahead() == []
    mine.leave()
    assert queue.waiting() == []


def test_files_of_others_in_the_lines_folder_are_no_tickets(home: Path):
    queue.folder().mkdir(parents=True)
    for name in (".DS_Store", "notes.txt", "²2.x"):
        (queue.folder() / name).touch()
    mine = queue.Ticket("mine")
    assert queue.waiting() == ["mine"]
    assert mine.ahead() == []
    assert (queue.folder() / "notes.txt").exists()
    mine.leave()


def test_place_in_line_is_kept_for_a_runner_that_is_about_to_lock_it(home: Path):
    """Between making its ticket and locking it, a runner looks like one that was killed; a minute tells them apart."""
    queue.folder().mkdir(parents=True)
    young, old = (queue.folder() / f"{time.time_ns() - age * 10**9:020d}.job" for age in (1, 61))
    young.touch()
    old.touch()
    assert queue.waiting() == []
    assert young.exists()
    assert not old.exists()


def test_process_identity_tells_a_process_from_its_successors():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = ProcessIdentity.of(process.pid)
    assert identity.alive()
    assert not ProcessIdentity(pid=process.pid, start="another boot/1").alive()
    assert not ProcessIdentity(pid=process.pid, start="another boot/1").send(signal.SIGTERM)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert not identity.alive(), "a zombie is not alive"
    process.wait()
    assert not identity.alive()
    with pytest.raises(ProcessLookupError):
        ProcessIdentity.of(process.pid)
