"""The ranks of one training: started together, watched, ended together. It stands where a single worker would stand.

Run as ``python launch.py mcp_server.jobs.ranks JOB_FOLDER`` in a process group of its own, to which all ranks on this machine
belong; those of other machines hang on an ssh each. Each rank holds the reading end of a pipe from here as its standard
input and ends itself when that closes (``workers/job.py``), so that none is left however this process ends.

Rank 0 is the worker that a single one would be: it has the job's folder, logs, saves and publishes. A stop request is passed
to it alone; the ranks agree on it between two steps. When one ends badly the others can't go on: they are ended, and the
reason is the reason of the one that ended first.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from pydantic import ValidationError

from mcp_server import launch
from mcp_server.errors import UserError
from mcp_server.jobs import hosts, recovery
from mcp_server.jobs.death import checkpoint_text, last_line, was_out_of_memory
from mcp_server.jobs.recovery import oom_kills
from mcp_server.jobs.store import JobFolder, Outcome
from mcp_server.jobs.world import FROM_STDIN, OUTCOME, Task, World
from mcp_server.training.diagnose import kind_of_failure, remedy

POLL_SECONDS = 0.05
FAREWELL_SECONDS = 10.0  # how long the others may take to notice by themselves and to say their last word
WORKER = "mcp_server.workers.train"
# Said by a rank that another has left: a consequence, never the cause.
_LEFT_ALONE = re.compile(r"\[(ring|jaccl|nccl)\]|connection to a peer|NCCL", re.I)
_UNMET = re.compile(r"Couldn't connect", re.I)
_LOOK = "look at addresses, cables and firewalls between the hosts"


class Rank:
    """One running rank."""

    def __init__(self, number: int, process: subprocess.Popen[bytes], log: Path, *, remote: bool) -> None:
        self.number, self.log = number, log
        self.ended_by_us = False
        self.code: int | None = None
        self._process = process
        self._remote = remote

    def poll(self) -> int | None:
        """The return code once it has ended, negative for a signal, there too where a shell stood between."""
        code = self._process.poll()
        if code is not None and self.code is None:
            self.code = 128 - code if self._remote and 128 < code < 160 else code
        return self.code

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        if self.poll() is None:
            self.ended_by_us = True
            self._process.kill()
            self._process.wait()
            self.poll()

    @property
    def lost_connection(self) -> bool:
        return self._remote and self.code == 255

    def outcome(self) -> Outcome | None:
        """The last word of a rank other than 0."""
        line = last_line(self.log, length=None)
        if self.number == 0 or not line.startswith(OUTCOME):
            return None
        try:
            return Outcome.model_validate_json(line.removeprefix(OUTCOME))
        except ValidationError:
            return None


class Ranks:
    """All ranks of one job, from their start to the end of the last."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._spec = folder.spec()
        assert self._spec.world is not None
        self._world: World = self._spec.world
        self._stop_asked = False
        self._ranks: list[Rank] = []
        self._ended: list[Rank] = []

    def run(self) -> int:
        """The exit code: 0 when rank 0 ended well; ``outcome.json`` says the rest."""
        signal.signal(signal.SIGTERM, self._on_stop)
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        kills_before = oom_kills()
        options = self._spec.options
        try:
            ports = hosts.check(self._world, self._spec.python, options["model"], options["data"]).ports
        except UserError as error:
            self._folder.write_outcome(Outcome(status="failed", why=str(error)))
            return 1
        for number in range(self._world.size):
            self._ranks.append(self._start(number, ports))
        try:
            self._wait()
        finally:
            for rank in self._ranks:
                rank.end()
                shutil.rmtree(self._folder.path / f"rank-{rank.number}", ignore_errors=True)
        if self._ranks[0].code == 0:
            return 0
        self._explain(kills_before)
        return 1

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        self._stop_asked = True

    def _start(self, number: int, ports: list[list[int]]) -> Rank:
        host = self._world.hosts[number]
        variables, files = self._world.protocol(number, ports)
        task = self._folder.path if number == 0 else FROM_STDIN
        command = launch.command(self._spec.python, WORKER, str(task))
        environment = os.environ | variables
        if host.ssh is not None:
            command = hosts.ssh(host.ssh, command, _settings() | variables | {"PYTHONUNBUFFERED": "1"})
        lock = os.environ.get("MLX_TRAINING_LOCK_FD")
        log = self._folder.log if number == 0 else self._folder.path / f"rank-{number}.log"
        with log.open("ab") as file:
            if number:  # what an earlier attempt said last must not be taken for this one's
                file.write(f"[{time.strftime('%H:%M:%S')}] {self._world.named(number)} starts\n".encode())
                file.flush()
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=(int(lock),) if lock is not None and host.ssh is None else (),
            )
        assert process.stdin is not None
        told = Task(
            spec=self._spec.model_dump() | {"resume_from": None, "scratch": None, "reserved": None},
            recovery=recovery.read(self._folder).model_dump(),
            files=files,
            scratch=None if host.ssh is not None else str(self._scratch(number) if number else self._folder.path),
        )
        with contextlib.suppress(OSError):  # it died at once: seen soon
            process.stdin.write(told.model_dump_json().encode() + b"\n")
            process.stdin.flush()
        return Rank(number, process, log, remote=host.ssh is not None)

    def _scratch(self, number: int) -> Path:
        """An empty folder for the copies that a rank on this machine makes of what rank 0 sends it."""
        folder = self._folder.path / f"rank-{number}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    def _wait(self) -> None:
        """Until all have ended, or one has ended so that the others must be."""
        stopped = False
        deadline: float | None = None
        while True:
            for rank in self._ranks:
                if rank not in self._ended and rank.poll() is not None:
                    self._ended.append(rank)
            if len(self._ended) == len(self._ranks):
                return
            # Rank 0 ends last when all is well, since it publishes: then the others have nothing left to do.
            if deadline is None and any(rank.code != 0 or rank.number == 0 for rank in self._ended):
                deadline = time.monotonic() + FAREWELL_SECONDS
            if deadline is not None and time.monotonic() > deadline:
                return
            if self._stop_asked and not stopped:
                stopped = True
                self._ranks[0].stop()
            time.sleep(POLL_SECONDS)

    def _explain(self, kills_before: int | None) -> None:
        """Write why it failed: the word of the rank that ended first of itself, unless that is rank 0's own word."""
        culprit = self._culprit()
        own = self._folder.outcome()
        if culprit.number == 0 and own is not None:
            return
        if self._stop_asked and culprit.number == 0 and culprit.code == -signal.SIGTERM:
            why = f"stopped as asked before it could begin{checkpoint_text(self._folder)}"
            self._folder.write_outcome(Outcome(status="cancelled", why=why))
            return
        name, left = self._world.named(culprit.number), checkpoint_text(self._folder)
        others = f"the other rank{'s were' if self._world.size > 2 else ' was'} ended"
        word, code, cause = culprit.outcome(), culprit.code or 0, None
        if word is not None:
            what, cause = f"failed: {word.why}", word.cause
            if _UNMET.search(word.why or ""):
                what += f"; {_LOOK}"
        elif code == -signal.SIGALRM:
            what = f"waited in vain for the others; {_LOOK}"
        elif culprit.lost_connection:
            what = f"was lost: ssh ended with exit code 255 ({last_line(culprit.log)})"
        elif code == -signal.SIGKILL:
            what = "was killed by SIGKILL"
            if was_out_of_memory(self._folder, kills_before):
                cause = "out-of-memory"
                what += f" for want of memory ({remedy(cause)})"
        else:
            said = last_line(culprit.log)
            ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            what, cause = f"{ended}: {said}", kind_of_failure(said)
        self._folder.write_outcome(Outcome(status="failed", why=f"{name} {what}; {others}{left}", cause=cause))

    def _culprit(self) -> Rank:
        """The rank whose end is the cause. Of those that ended close together: first a signal, then a word of one's own,
        rank 0's before all, since what all ranks find wrong (a row of the data) is its to say."""
        own = [rank for rank in self._ranks if not rank.ended_by_us and rank.code]
        in_order = sorted(own, key=lambda rank: self._ended.index(rank) if rank in self._ended else len(self._ranks))
        return min(in_order, key=self._blame) if in_order else self._ranks[0]

    def _blame(self, rank: Rank) -> tuple[int, bool]:
        if rank.code is not None and rank.code < 0 and rank.code != -signal.SIGABRT:
            return 0, False
        word = rank.outcome() if rank.number else self._folder.outcome()
        text = (word.why or "") if word is not None else last_line(rank.log)
        return (2 if _LEFT_ALONE.search(text) else 1), rank.number != 0


def _settings() -> dict[str, str]:
    """What of this environment decides how mlx computes; an ssh carries none of it by itself."""
    names = {name for name in os.environ if name.startswith("MLX_") and not name.startswith("MLX_TRAINING_")}
    return {name: os.environ[name] for name in names | {"HF_HUB_OFFLINE"} & os.environ.keys()}


def main() -> None:
    folder = JobFolder(Path(sys.argv[1]))
    sys.exit(Ranks(folder).run())


if __name__ == "__main__":
    main()
