"""Chaos: real trainings under two servers and three sessions, with a fault a round; nothing is lost, and all of it is true.

``make chaos`` runs hundreds of rounds (MLX_TRAINING_CHAOS_ROUNDS), tests run a few. After each fault has been lifted:

- every job that has ended says so and why, and what it says is true (completed means a whole adapter of the last step);
- every checkpoint that calls itself complete loads, and so does every published adapter;
- no session crashes: a tool's answer is a result or one sentence of error;
- at the end no process, no lock, no ticket and no scratch folder is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from safetensors.numpy import load_file

from mcp_server.jobs import lock, queue, service, store
from mcp_server.jobs.process import ProcessIdentity
from mcp_server.jobs.store import JobFolder
from tests.helpers import training, wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(7200)]
SHORT = 8
ROUNDS = int(os.environ.get("MLX_TRAINING_CHAOS_ROUNDS", "200"))
SEED = int(os.environ.get("MLX_TRAINING_CHAOS_SEED", "2026"))
ARGUMENTS = {"save_every": 2, "save_total_limit": 2, "steps_per_report": 1, "val_batches": 0, "iters": 60}
LONGEST = 120.0  # seconds in which an unharmed job of this size has surely ended


class Session:
    """One client in a task of its own: what a killed server does to its transport stays there."""

    def __init__(self, target: Any) -> None:
        self._calls: asyncio.Queue[tuple[str, dict[str, Any], asyncio.Future[Any]]] = asyncio.Queue()
        self._task = asyncio.create_task(self._run(target))

    async def _run(self, target: Any) -> None:
        answer: asyncio.Future[Any] | None = None
        try:
            async with Client(target) as client:
                while True:
                    tool, arguments, answer = await self._calls.get()
                    answer.set_result(await client.call_tool(tool, arguments))
        finally:
            if answer is not None and not answer.done():
                answer.cancel()

    async def call(self, tool: str, arguments: dict[str, Any]) -> Any:
        """The raw result. Raises ConnectionError when the session is dead."""
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._calls.put_nowait((tool, arguments, answer))
        done, _ = await asyncio.wait({answer, self._task}, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        if answer in done and not answer.cancelled():
            return answer.result()
        why = self._task.exception() if self._task.done() and not self._task.cancelled() else "no answer in 60 s"
        raise ConnectionError(str(why))

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task}, timeout=20)


class Sessions:
    """Two servers and three sessions: one server over HTTP with two, one over stdio. Dead ones are started again."""

    def __init__(self, project: Path) -> None:
        self._project = project
        self._open: dict[str, Session] = {}
        self.server: subprocess.Popen[bytes] | None = None
        self._port = 0

    async def session(self, name: str) -> Session:
        if name not in self._open:
            if name == "stdio":
                target: Any = StdioServerParameters(
                    command=sys.executable, args=["-m", "mcp_server"], env=dict(os.environ), cwd=self._project
                )
            else:
                await self._serve()
                target = f"http://127.0.0.1:{self._port}/mcp"
            self._open[name] = Session(target)
        return self._open[name]

    async def _serve(self) -> None:
        if self.server is not None and self.server.poll() is None:
            return
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self.server = subprocess.Popen(
            [sys.executable, "-m", "mcp_server", "--http", "--port", str(self._port)],
            cwd=self._project,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
                return
            await asyncio.sleep(0.1)
        pytest.fail("the HTTP server did not start")

    async def call(self, name: str, tool: str, **arguments: Any) -> dict[str, Any] | str:
        """A tool's result, or its error's text. A session whose server was killed is opened anew, once."""
        try:
            result = await (await self.session(name)).call(tool, arguments)
        except ConnectionError:
            await self.drop(name)
            result = await (await self.session(name)).call(tool, arguments)
        text = " ".join(getattr(block, "text", "") for block in result.content)
        assert "Traceback" not in text, text
        assert not (result.is_error and "which nobody foresaw" in text), f"{tool} crashed"
        return text if result.is_error else result.structured_content or {}

    async def drop(self, name: str) -> None:
        session = self._open.pop(name, None)
        if session is not None:
            await session.close()

    async def kill_in_mid_call(self, job: JobFolder) -> None:
        """SIGKILL the HTTP server while it holds a waiting call."""
        session = await self.session("http-1")
        arguments = {"job_id": job.job_id, "wait_seconds": 3, "until": "end"}
        waiting = asyncio.ensure_future(session.call("read_training_log", arguments))
        await asyncio.sleep(0.4)
        assert self.server is not None
        self.server.kill()
        self.server.wait()
        for name in ("http-1", "http-2"):
            await self.drop(name)
        await asyncio.wait({waiting}, timeout=70)
        if not waiting.cancelled():
            waiting.exception()

    async def close(self) -> None:
        for name in list(self._open):
            await self.drop(name)
        if self.server is not None:
            self.server.kill()
            self.server.wait()


class Chaos:
    """The faults. Each returns a function that lifts it again."""

    def __init__(self, project: Path, home: Path, disk: Path | None, offset: Path | None, dice: random.Random) -> None:
        self.project, self.home, self.disk, self.offset, self.dice = project, home, disk, offset, dice
        self.harmed: set[str] = set()  # jobs whose own records were destroyed
        faults: dict[str, Callable[[], Callable[[], None] | None]] = {
            "worker killed": lambda: self._signal("worker", signal.SIGKILL),
            "runner killed": lambda: self._signal("runner", signal.SIGKILL),
            "both killed": self._both,
            "worker stopped": lambda: self._stopped("worker"),
            "runner stopped": lambda: self._stopped("runner"),
            "runner told to end": lambda: self._signal("runner", signal.SIGTERM),
            "worker told to end": lambda: self._signal("worker", signal.SIGTERM),
            "record corrupted": self._corrupt,
            "record deleted": self._delete,
            "queue deleted": self._no_queue,
            "calibration and index corrupted": self._derived,
            "calm": lambda: None,
        }
        if disk is not None:
            faults["disk full"] = self._full
        if shutil.which("chattr") and os.geteuid() == 0:
            faults["adapters read-only"] = self._read_only
        if offset is not None:
            faults["clock step"] = self._clock
        self.faults = faults

    def running(self) -> JobFolder | None:
        holder = lock.read_holder(str(self.home / "gpu.lock"))
        name = str(holder.get("job_id", "")) if holder else ""
        return JobFolder(store.jobs_folder() / name) if name else None

    def _identity(self, role: str) -> ProcessIdentity | None:
        job = self.running()
        return None if job is None else getattr(job.state(), role)

    def _signal(self, role: str, number: signal.Signals) -> None:
        identity = self._identity(role)
        if identity is not None:
            identity.send(number)

    def _both(self) -> None:
        job = self.running()
        if job is not None:
            state = job.state()
            for identity in (state.runner, state.worker):
                if identity is not None:
                    identity.send(signal.SIGKILL)

    def _stopped(self, role: str) -> Callable[[], None] | None:
        identity = self._identity(role)
        if identity is None or not identity.send(signal.SIGSTOP):
            return None
        return lambda: void(identity.send(signal.SIGCONT))

    def _some_record(self) -> Path | None:
        jobs = [job for job in store.all_folders() if job.job_id not in self.harmed]
        if not jobs:
            return None
        job = self.dice.choice(jobs)
        self.harmed.add(job.job_id)
        return job.path / self.dice.choice(
            ["state.json", "outcome.json", "metrics.jsonl", "spec.json", "estimate.json"]
        )

    def _corrupt(self) -> None:
        path = self._some_record()
        if path is not None and path.exists():
            garbage = self.dice.choice([b"", b"\x00" * 64, b'{"status": "wor', b"[1, 2]", b"\xff\xfe\x00"])
            path.write_bytes(garbage)

    def _delete(self) -> None:
        path = self._some_record()
        if path is None:
            return
        if self.dice.random() < 0.4:
            shutil.rmtree(path.parent, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def _no_queue(self) -> None:
        shutil.rmtree(queue.folder(), ignore_errors=True)

    def _derived(self) -> None:
        for name in ("calibration.json", "jobs.sqlite"):
            path = self.home / name
            if path.exists():
                path.write_bytes(b"\x00garbage")

    def _full(self) -> Callable[[], None]:
        assert self.disk is not None
        ballast = self.disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 65536) == 65536:
                pass
        return lambda: ballast.unlink(missing_ok=True)

    def _read_only(self) -> Callable[[], None] | None:
        folder = self.project / "adapters"
        folder.mkdir(exist_ok=True)
        if subprocess.run(["chattr", "+i", str(folder)], capture_output=True, check=False).returncode != 0:
            return None
        return lambda: void(subprocess.run(["chattr", "-i", str(folder)], check=True))

    def _clock(self) -> Callable[[], None]:
        assert self.offset is not None
        self.offset.write_text(str(self.dice.choice([-86400, -3600, 3600, 86400 * 400])))
        return lambda: void(self.offset.write_text("0") if self.offset else None)


def void(_: object) -> None:
    """A lifted fault returns nothing."""


@pytest.fixture
def disk(home: Path) -> Iterator[Path | None]:
    """The state folder on a disk of its own that can be filled; None where mounting is not allowed."""
    home.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", str(home)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        yield None
        return
    yield home
    subprocess.run(["umount", "-l", str(home)], check=True)


@pytest.fixture
def offset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    """The file that moves the clock of every process started from here; None without a C compiler."""
    library = tmp_path / "clock.so"
    source = Path(__file__).with_name("clock.c")
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        return None
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", str(source), "-o", str(library), "-ldl"], check=True)
    file = tmp_path / "clock-offset"
    file.write_text("0")
    monkeypatch.setenv("LD_PRELOAD", f"{library}:{os.environ.get('LD_PRELOAD', '')}".rstrip(":"))
    monkeypatch.setenv("CLOCK_OFFSET_FILE", str(file))
    return file


@pytest.fixture
async def sessions(project: Path, disk: Path | None, offset: Path | None) -> AsyncIterator[Sessions]:
    opened = Sessions(project)
    yield opened
    await opened.close()


def check_truth(job: JobFolder, harmed: bool) -> str:
    """The job's status, which must be true. ``harmed``: its records were destroyed, so only honesty can be asked."""
    state = service.reconcile(job) if (job.path / "spec.json").exists() else job.state()
    for folder in job.checkpoints.glob("[0-9]*"):
        if (folder / "checkpoint.json").exists():
            step = json.loads((folder / "checkpoint.json").read_bytes())["step"]
            assert step == int(folder.name)
            assert load_file(folder / "adapters.safetensors")
            assert load_file(folder / "optimizer.safetensors")
    if harmed:
        return state.status
    if state.finished:
        assert state.status == "completed" or state.why, f"{job.job_id} is {state.status} without a reason"
    if state.status == "completed":
        adapter = Path(job.spec().options["adapter_path"])
        outcome = job.outcome()
        assert outcome is not None
        assert outcome.result is not None
        assert outcome.result["steps"] == ARGUMENTS["iters"]
        weights = adapter / "adapters.safetensors"
        # While a continuation puts its own in place there are none for a moment: ``artifacts.put_in_place``.
        wait_until(weights.exists, f"{weights}", 10)
        assert load_file(weights)
    return state.status


async def settled(job: JobFolder, seconds: float = LONGEST) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not job.path.is_dir() or not (job.path / "spec.json").exists():
            return
        with contextlib.suppress(Exception):
            if service.reconcile(job).finished:
                return
        await asyncio.sleep(0.1)
    pytest.fail(f"{job.job_id} is still {job.state()} after {seconds} s")


def processes_of(home: Path) -> list[psutil.Process]:
    """Runners and workers of this state folder, zombies among them."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if str(home / "jobs") in " ".join(process.cmdline()):
                found.append(process)
    return found


async def next_job(sessions: Sessions, chaos: Chaos, dice: random.Random, number: int) -> JobFolder | str:
    """Go on from a run that did not end well, or begin another; the sentence with which that was refused."""
    name = dice.choice(["stdio", "http-1", "http-2"])
    resumable = [
        job
        for job in store.all_folders()
        if job.job_id not in chaos.harmed and job.state().finished and job.last_checkpoint() is not None
    ]
    unfinished = [job for job in resumable if job.state().status in ("lost", "failed", "cancelled")]
    if unfinished and dice.random() < 0.7:
        answer = await sessions.call(name, "start_lora_training", resume=dice.choice(unfinished).job_id)
    else:
        answer = await sessions.call(name, "start_lora_training", **new_run(number))
    return answer if isinstance(answer, str) else JobFolder(store.jobs_folder() / answer["job_id"])


def new_run(number: int) -> dict[str, Any]:
    return training(**ARGUMENTS) | {"adapter_path": f"adapters/{number}", "seed": number}


async def begin_and_complete(sessions: Sessions, number: int) -> None:
    """After all faults a new training runs to its end."""
    answer = await sessions.call("http-1", "start_lora_training", **new_run(number))
    assert not isinstance(answer, str), answer
    job = JobFolder(store.jobs_folder() / answer["job_id"])
    await settled(job)
    assert job.state().status == "completed", job.state()


@pytest.mark.parametrize(
    "rounds", [pytest.param(SHORT, marks=pytest.mark.integration), pytest.param(ROUNDS, marks=pytest.mark.slow)]
)
async def test_nothing_is_lost_in_chaos(
    rounds: int,
    project: Path,
    home: Path,
    disk: Path | None,
    offset: Path | None,
    sessions: Sessions,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dice = random.Random(SEED)
    chaos = Chaos(project, home, disk, offset, dice)
    counted: Counter[str] = Counter()
    refused: list[str] = []
    started: list[JobFolder] = []
    for number in range(rounds):
        if chaos.running() is None or dice.random() < 0.15:
            job = await next_job(sessions, chaos, dice, number)
            if isinstance(job, str):
                refused.append(job)
            else:
                started.append(job)
        await asyncio.sleep(dice.uniform(0, 4))
        fault = dice.choice(list(chaos.faults))
        counted[fault] += 1
        lift = chaos.faults[fault]()
        await asyncio.sleep(dice.uniform(0, 2))
        if started and dice.random() < 0.15:
            counted["server killed in mid-call"] += 1
            await sessions.kill_in_mid_call(started[-1])
        for name in ("stdio", "http-1", "http-2"):
            await sessions.call(name, "list_jobs")
        if started:
            await sessions.call(
                dice.choice(["stdio", "http-1"]), "read_training_log", job_id=dice.choice(started).job_id
            )
        if lift is not None:
            lift()
        for job in list(store.all_folders()):
            check_truth(job, job.job_id in chaos.harmed)
    for job in list(store.all_folders()):
        await settled(job)
    # A job whose records were destroyed may have left its processes at work; they must end by themselves all the same.
    deadline = time.monotonic() + LONGEST
    while (left := processes_of(home)) and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    assert not left, f"still there: {[(process.pid, process.status(), process.cmdline()) for process in left]}"
    ended = Counter(check_truth(job, job.job_id in chaos.harmed) for job in store.all_folders())
    assert lock.read_holder(str(home / "gpu.lock")) is None
    assert queue.waiting() == []
    leftovers = [path for path in project.rglob(".*") if path.is_dir()]
    assert leftovers == [], leftovers
    adapters = list((project / "adapters").glob("*/adapters.safetensors"))
    for adapter in adapters:
        assert load_file(adapter)
    await begin_and_complete(sessions, rounds)
    with capsys.disabled():
        faults = ", ".join(f"{name} {count}" for name, count in counted.most_common())
        print(f"\n{rounds} rounds ({faults}); {len(started)} starts, {len(refused)} refused {refused}; jobs: {dict(ended)}; "
              f"{len(adapters)} adapters load")  # fmt: skip
