"""The runner: a small process of its own session that takes one job from the queue to its end.

It outlives the server. It waits its turn, holds the GPU lock (its worker inherits it), starts the worker, passes stop
requests on, and records how the worker ended. Run as ``python launch.py mcp_server.jobs.runner JOB_FOLDER``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Literal

from mcp_server import launch, settings
from mcp_server.jobs import lock, recovery, store
from mcp_server.jobs.cleanup import clean
from mcp_server.jobs.death import checkpoint_text, describe_death, was_out_of_memory
from mcp_server.jobs.events import PUBLISHED, EventWriter, read_since, tail
from mcp_server.jobs.files import read_json, write_json
from mcp_server.jobs.process import ProcessIdentity
from mcp_server.jobs.queue import Ticket
from mcp_server.jobs.store import SKIPS_LINE, JobFolder, JobState, Outcome
from mcp_server.jobs.world import without_engine
from mcp_server.planning.budget import free_bytes
from mcp_server.training.measures import worker_environment

POLL_SECONDS = 0.1
LAST_WORD_SECONDS = 60.0  # how long a full disk may keep the end from being recorded
MEMORY_SECONDS = float(
    os.environ.get("MLX_TRAINING_MEMORY_SECONDS", "30")
)  # how long a job waits for memory to be free
# Of a worker that was asked to stop, since its last sign of life: a checkpoint of a large model takes a while to write.
GRACE_SECONDS = 120.0
MOST_GRACE_SECONDS = 3600.0  # since it was asked: longer than any update and validation that are worth waiting for
WORKERS = {
    "train": "mcp_server.workers.train",
    "convert": "mcp_server.workers.convert",
    "fuse": "mcp_server.workers.fuse",
    "generate": "mcp_server.workers.generate",
    "benchmark": "mcp_server.workers.benchmark",
    "probe": "mcp_server.workers.probe",
    "environment": "mcp_server.workers.environment",
}


_NOT_STARTED = 127  # as a shell's exit code of a command that is not there


class Runner:
    """One job's life, from its ticket to its exit record."""

    def __init__(self, folder: JobFolder) -> None:
        self._folder = folder
        self._spec = folder.spec()
        self._me = ProcessIdentity.of(os.getpid())
        self._stop_asked_at: float | None = None
        self._unwritten: JobState | None = None
        self._events = EventWriter(folder.metrics)

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._on_stop)
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        descriptor: int | None = None
        if self._spec.kind not in SKIPS_LINE:
            descriptor = self._wait_for_turn()
            if descriptor is None or not self._memory_is_free():
                return
        started = time.time()
        while True:
            kills_before, logged = recovery.oom_kills(), self._logged()
            try:
                process = self._start_worker(descriptor)
            except OSError as error:
                outcome, code = self._unstartable(error), _NOT_STARTED
                break
            try:
                worker = ProcessIdentity.of(process.pid)
            except ProcessLookupError:
                worker = None
            if descriptor is not None:
                self._announce(descriptor, process.pid)
            self._record(JobState(status="working", started=started, runner=self._me, worker=worker))
            outcome, code = self._end_of(process, kills_before, logged)
            if not self._goes_on(outcome):
                break
        self._record_end(outcome, code, started)
        if descriptor is not None:
            os.close(descriptor)

    def _unstartable(self, error: OSError) -> Outcome:
        """Of a worker whose interpreter has gone or can't be run any more, perhaps while the job waited in line."""
        why = f"the worker could not be started with {self._command()[0]}: {error}; put this Python back or have another found"
        return Outcome(
            status="failed",
            why=f"{why} (MLX_TRAINING_PYTHON, prepare_environment), and start again{checkpoint_text(self._folder)}",
        )

    def _logged(self) -> int:
        """Bytes of the log so far."""
        try:
            return self._folder.metrics.stat().st_size
        except OSError:
            return 0

    def _end_of(self, process: subprocess.Popen[bytes], kills_before: int | None, logged: int) -> tuple[Outcome, int]:
        code = self._wait_for(process)
        if self._spec.world is not None:
            # Whatever became of the process that watches the ranks: none of them outlives it.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        outcome = self._folder.outcome()
        if outcome is None:
            out_of_memory = code == -signal.SIGKILL and was_out_of_memory(self._folder, kills_before)
            outcome = describe_death(self._folder, code, self._stop_asked_at is not None, out_of_memory)
            outcome = self._with_adapter(outcome, logged)
        elif outcome.cause is not None:  # said of a rank that died
            outcome = self._with_adapter(outcome, logged)
        return outcome, code

    def _with_adapter(self, outcome: Outcome, logged: int) -> Outcome:
        """Of a worker that died after it had published, in the test: the adapter is there, and nothing is to be tried again."""
        for event in read_since(self._folder.metrics, logged).events:
            if event["type"] == "phase" and event.get("name") == PUBLISHED:
                why = f"{outcome.why}; the training was over, its adapter is in {event['path']}"
                return outcome.model_copy(update={"why": why, "cause": None})
        return outcome

    def _goes_on(self, outcome: Outcome) -> bool:
        """Whether a job that ran out of memory is tried again, one rung lower."""
        if outcome.cause != "out-of-memory" or self._stop_asked_at is not None:
            return False
        try:
            lower = recovery.next_rung(self._folder, self._spec)
        except OSError as error:
            say(f"recovery.json could not be written: {error}")
            return False
        if lower is None:
            return False
        self._events.write(
            "alert", kind="out-of-memory", level="error", message=f"{outcome.why}; going on with {lower.rungs[-1]}"
        )
        return True

    def _record(self, state: JobState) -> bool:
        """Write the state; on a full disk keep it to try again, since the worker must go on whatever the disk does."""
        try:
            self._folder.write_state(state)
        except OSError as error:
            if self._unwritten is None:
                say(f"state.json could not be written: {error}")
            self._unwritten = state
            return False
        self._unwritten = None
        return True

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        # The first request counts: asking again does not put the end off.
        self._stop_asked_at = self._stop_asked_at or time.monotonic()

    def _wait_for_turn(self) -> int | None:
        """The locked descriptor, or None when the job ended while it waited."""
        ticket = Ticket(self._folder.job_id)
        self._record(JobState(status="queued", runner=self._me))
        if self._folder.stop_request.exists():  # asked for before anybody knew whom to tell
            self._stop_asked_at = time.monotonic()
        path = str(settings.home() / "gpu.lock")
        try:
            while True:
                if self._stop_asked_at is not None:
                    self._end_unstarted("stopped while it waited in line")
                    return None
                descriptor = None if ticket.ahead() else lock.acquire(path)
                if descriptor is not None:
                    # Before the ticket goes: what the lock still says of its last holder would be taken for ours.
                    lock.write_holder(descriptor, {"job_id": self._folder.job_id, "kind": self._spec.kind})
                    return descriptor
                # Who only looks at the lock holds it for a moment too; that is no reason to refuse.
                if self._spec.if_busy == "refuse" and (ticket.ahead() or lock.read_holder(path) is not None):
                    self._end_unstarted(store.REFUSED)
                    return None
                time.sleep(POLL_SECONDS)
        finally:
            ticket.leave()

    def _memory_is_free(self) -> bool:
        """Whether the job has the memory it needs, now that its turn has come; what the last job held takes a moment to go.

        Otherwise the job ends here: begun beside a program that holds the memory it would freeze the machine.
        """
        needs = self._spec.needs_bytes
        deadline = time.monotonic() + MEMORY_SECONDS
        while needs is not None and (free := free_bytes()) < needs:
            if self._stop_asked_at is not None:
                self._end_unstarted("stopped while it waited for memory")
                return False
            if time.monotonic() > deadline:
                held = f"it needs {needs / 1e9:.2f} GB and {free / 1e9:.2f} GB are free: other programs hold the rest"
                self._end_unstarted(f"{held}; close some and start it again", status="failed")
                return False
            time.sleep(1.0)
        return True

    def _end_unstarted(self, why: str, status: Literal["cancelled", "failed"] = "cancelled") -> None:
        clean(self._spec)
        self._record(JobState(status=status, why=why, ended=time.time(), runner=self._me))

    def _start_worker(self, descriptor: int | None) -> subprocess.Popen[bytes]:
        (self._folder.path / "outcome.json").unlink(missing_ok=True)
        held = () if descriptor is None else (descriptor,)
        environment = without_engine(os.environ) | {"PYTHONUNBUFFERED": "1"}
        rungs = recovery.read(self._folder).rungs
        environment |= worker_environment(self._spec.kind, self._spec.options, os.environ, saving=bool(rungs))
        if descriptor is not None:
            environment["MLX_TRAINING_LOCK_FD"] = str(descriptor)
        with self._folder.log.open("ab", buffering=0) as log:
            if rungs:  # what the attempt before said last must not be taken for this one's
                with contextlib.suppress(OSError):
                    log.write(f"[{time.strftime('%H:%M:%S')}] starts with {rungs[-1]}\n".encode())
            return subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                pass_fds=held,
                start_new_session=True,  # a signal to the runner's group must not end the worker without a checkpoint
            )

    def _command(self) -> list[str]:
        """The worker's command line; of several ranks, that of the process that starts and watches them."""
        if self._spec.world is not None:
            return launch.command(sys.executable, "mcp_server.jobs.ranks", str(self._folder.path))
        return launch.command(self._spec.python, WORKERS[self._spec.kind], str(self._folder.path))

    def _announce(self, descriptor: int, pid: int) -> None:
        lock.write_holder(
            descriptor,
            {
                "job_id": self._folder.job_id,
                "kind": self._spec.kind,
                "pid": pid,
                "pgid": pid,
                "runner_pid": os.getpid(),
                "adapter_path": self._spec.options.get("adapter_path"),
                "project": self._spec.project,
            },
        )

    def _wait_for(self, process: subprocess.Popen[bytes]) -> int:
        """The worker's return code; stop requests are passed on, gently first."""
        asked = False
        seen, alive_at = self._sign_of_life(), time.monotonic()
        stall = StallWatch(self._folder.metrics, self._events, begun=time.time())
        while (code := process.poll()) is None:
            if self._stop_asked_at is not None:
                request = read_json(self._folder.stop_request) or {}
                now = time.monotonic()
                if (sign := self._sign_of_life()) != seen:
                    seen, alive_at = sign, now
                silent = now - max(alive_at, self._stop_asked_at)
                over = silent >= GRACE_SECONDS or now - self._stop_asked_at >= MOST_GRACE_SECONDS
                if over or request.get("action") == "kill":
                    process.kill()
                elif not asked:
                    process.terminate()
                    asked = True
            if self._unwritten is not None:
                self._record(self._unwritten)
            if not asked:  # what it writes would be taken for a sign of the worker's life
                stall.look()
            time.sleep(POLL_SECONDS)
        return code

    def _sign_of_life(self) -> int | None:
        """Differs from the last one when the worker has reported or touched its log since (``WorkerJob.beat``). Compared, never
        reckoned with: the clock may be set."""
        try:
            return self._folder.metrics.stat().st_mtime_ns
        except OSError:
            return None

    def _record_end(self, outcome: Outcome, code: int, started: float) -> None:
        clean(self._spec)
        ended = time.time()
        record = {
            "code": code if code >= 0 else None,
            "signal": signal.Signals(-code).name if code < 0 else None,
            "time": ended,
            "status": outcome.status,
            "reason": outcome.why,
        }
        try:
            write_json(self._folder.path / "exit.json", record)
        except OSError as error:
            say(f"exit.json could not be written: {error}: {record}")
        final = JobState(status=outcome.status, why=outcome.why, started=started, ended=ended, runner=self._me)
        self._report(final)
        deadline = time.monotonic() + LAST_WORD_SECONDS
        while not self._record(final) and self._folder.path.is_dir() and time.monotonic() < deadline:
            time.sleep(1.0)

    def _report(self, final: JobState) -> None:
        """The job's page, before the end is recorded: whoever sees the end finds it. Its failure never changes the end."""
        try:
            from mcp_server.reports.write import AT_THE_END, write_final_reports  # here: only needed at the end

            if self._spec.kind in AT_THE_END:
                write_final_reports(self._folder, final)
        except Exception as error:
            say(f"report.html could not be written: {type(error).__name__}: {error}")


def say(text: str) -> None:
    """A line in runner.log, unless the disk is full for that too."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


class StallWatch:
    """Says so when a worker that reports has written nothing for ten times its usual pause, and at least for minutes."""

    LEAST_SECONDS = 300.0
    LOOK_SECONDS = 15.0

    def __init__(self, metrics: Path, events: EventWriter, begun: float) -> None:
        """``begun``: when the worker was started, seconds since the epoch."""
        self._metrics = metrics
        self._events = events
        self._looked = time.monotonic()
        self._begun = begun
        self._told_at: float | None = None

    def look(self) -> None:
        """To be called often; looks now and then."""
        if time.monotonic() - self._looked < self.LOOK_SECONDS:
            return
        self._looked = time.monotonic()
        times = [event["time"] for event in tail(self._metrics) if event["type"] in ("train", "progress")]
        # A resumed job's log begins with the curves of the run before.
        times = [at for at in times if at >= self._begun]
        if len(times) < 3 or times[-1] == self._told_at:
            return
        usual = max(later - earlier for earlier, later in itertools.pairwise(times[-10:]))
        silent = time.time() - times[-1]
        if silent > max(self.LEAST_SECONDS, 10 * usual):
            self._told_at = times[-1]
            self._events.write(
                "alert", kind="stalled", level="warning", message=f"nothing was reported for {silent / 60:.0f} minutes"
            )


def main() -> None:
    # The server waits for this process alone and never for the job: its child is adopted by init and leaves no zombie.
    if os.fork():
        os._exit(0)
    Runner(JobFolder(Path(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
