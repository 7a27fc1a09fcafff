"""What the runner notices of its worker."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path

import psutil
import pytest
from pydantic import BaseModel

from mcp_server import launch
from mcp_server.conversion.options import ConvertOptions, FuseOptions
from mcp_server.errors import JobError
from mcp_server.jobs import lock, queue, service, store
from mcp_server.jobs.death import describe_death, was_out_of_memory
from mcp_server.jobs.events import EventWriter, read_since
from mcp_server.jobs.recovery import next_rung, read
from mcp_server.jobs.runner import StallWatch
from mcp_server.jobs.store import JobFolder, JobSpec
from mcp_server.training.options import TrainingOptions
from tests.helpers import wait_until


def write_reports(metrics: Path, ages: list[float]) -> None:
    """One training event for each age, in seconds."""
    now = time.time()
    lines = [json.dumps({"type": "train", "time": now - age, "step": n}) for n, age in enumerate(ages)]
    metrics.write_text("\n".join(lines) + "\n", encoding="utf-8")


def alerts_after(
    tmp_path: Path, ages: list[float], monkeypatch: pytest.MonkeyPatch, begun_before: float = 9000
) -> list[str]:
    monkeypatch.setattr(StallWatch, "LOOK_SECONDS", 0.0)
    metrics = tmp_path / "metrics.jsonl"
    write_reports(metrics, ages)
    watch = StallWatch(metrics, EventWriter(metrics), begun=time.time() - begun_before)
    watch.look()
    watch.look()
    return [event["kind"] for event in read_since(metrics, 0).events if event["type"] == "alert"]


def test_long_silence_is_a_stall_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert alerts_after(tmp_path, [1000, 995, 990, 985], monkeypatch) == ["stalled"]


def test_slow_steps_and_short_silence_are_no_stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert alerts_after(tmp_path, [2400, 1700, 1000, 600], monkeypatch) == []
    assert alerts_after(tmp_path, [40, 30, 20], monkeypatch) == []


def test_reports_of_the_run_that_is_resumed_are_no_stall_and_no_usual_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its curves are the beginning of the log, and it may have lain still for a night."""
    assert alerts_after(tmp_path, [50_010, 50_005, 50_000], monkeypatch, begun_before=20) == []
    since = [990.0, 985.0, 980.0]
    assert alerts_after(tmp_path, [50_010, 50_005, 50_000, *since], monkeypatch, begun_before=1000) == ["stalled"]


def spec(batch_size: int, **changes: bool) -> JobSpec:
    options = TrainingOptions.model_validate({"model": "m", "data": "d", "batch_size": batch_size} | changes)
    return JobSpec(job_id="train-x", kind="train", created=0, project="/", python="p", options=options.model_dump())


def test_ladder_goes_down_rung_by_rung_and_ends(tmp_path: Path):
    folder = JobFolder(tmp_path)
    rungs: list[tuple[int, bool | None, int | None]] = []
    while lower := next_rung(folder, spec(6, recover_by_cutting=True)):
        rungs.append((lower.splits, lower.grad_checkpoint, lower.max_seq_length))
    assert rungs[:4] == [(2, None, None), (3, None, None), (6, None, None), (6, True, None)]
    assert [length for _, _, length in rungs[4:]] == [1024, 512, 256, 128, 64]
    assert len(read(folder).rungs) == len(rungs)


def test_without_consent_nothing_is_cut_and_without_recovery_nothing_is_tried(tmp_path: Path):
    folder = JobFolder(tmp_path)
    assert next_rung(folder, spec(1)) is not None  # gradient checkpointing
    assert next_rung(folder, spec(1)) is None
    assert next_rung(folder, spec(8, auto_recover=False)) is None


@pytest.mark.parametrize(
    ("code", "stopped", "out_of_memory", "status", "cause"),
    [
        (-signal.SIGKILL, False, False, "failed", None),
        (-signal.SIGKILL, False, True, "failed", "out-of-memory"),
        (-signal.SIGKILL, True, False, "cancelled", None),
        (-signal.SIGSEGV, False, False, "failed", None),
        (3, False, False, "failed", None),
    ],
)
def test_deaths_are_told_apart(
    tmp_path: Path, code: int, stopped: bool, out_of_memory: bool, status: str, cause: str | None
):
    outcome = describe_death(JobFolder(tmp_path), code, stopped, out_of_memory)
    assert (outcome.status, outcome.cause) == (status, cause)
    assert outcome.why


@pytest.mark.parametrize(("share", "out_of_memory"), [(0.01, True), (0.5, False), (None, False)])
def test_where_the_system_counts_no_kills_the_last_telemetry_tells_a_want_of_memory(
    tmp_path: Path, share: float | None, out_of_memory: bool
):
    folder = JobFolder(tmp_path)
    events = EventWriter(folder.metrics)
    total = psutil.virtual_memory().total
    for part in (0.3, share):
        if part is not None and share is not None:
            events.write("memory", step=1, available_bytes=int(part * total))
    assert was_out_of_memory(folder, kills_before=None) is out_of_memory


def test_start_whose_runner_does_not_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(JobError, match="could not be started"):
        service.start(
            "train",
            TrainingOptions(model="m", data="d"),
            job_id="train-x",
            python=Path("python"),
            scratch=scratch,
        )
    assert list(store.all_folders()) == []
    assert not scratch.exists()


@pytest.mark.parametrize("kind", ["train", "convert", "fuse"])
def test_folder_that_a_living_job_makes_is_not_made_by_another_as_well(kind: store.Kind, tmp_path: Path):
    """One waits in line, however it is asked for a second time; when it has ended the folder may be made anew."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nwhile [ ! -e "$4/go" ]; do sleep 0.05; done\n')
    python.chmod(0o755)
    (tmp_path / "link").symlink_to(tmp_path)

    def start(job_id: str, path: Path) -> JobFolder:
        options: dict[store.Kind, BaseModel] = {
            "train": TrainingOptions(model="m", data="d", adapter_path=str(path)),
            "convert": ConvertOptions(model="m", mlx_path=str(path)),
            "fuse": FuseOptions(adapter_path="/a", save_path=str(path)),
        }
        return service.start(kind, options[kind], job_id=f"{kind}-{job_id}", python=python)

    first, waiting = start("one", tmp_path / "one"), start("two", tmp_path / "two")
    with pytest.raises(JobError, match=f"job {kind}-two, which is queued, already makes .*two; .* stop_job"):
        start("three", tmp_path / "link/two")
    assert sorted(folder.job_id for folder in store.all_folders()) == [f"{kind}-one", f"{kind}-two"]
    service.ask_to_stop(waiting, "stop")
    wait_until(lambda: service.reconcile(waiting).finished, "it to leave the line")
    last = start("three", tmp_path / "link/two")
    for job in (first, last):
        (job.path / "go").touch()
        wait_until(lambda job=job: service.reconcile(job).finished, "the end")


def test_start_whose_launcher_hangs_is_refused_in_words_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    hangs = tmp_path / "python"
    hangs.write_text(f'#!/bin/sh\necho $$ > "{tmp_path}/pid"\nexec sleep 60\n')
    hangs.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hangs))
    monkeypatch.setattr(service, "_LAUNCH_SECONDS", 1.0)
    with pytest.raises(JobError, match="did not start in 1 s"):
        service.start("train", TrainingOptions(model="m", data="d"), job_id="train-x", python=Path("python"))
    assert list(store.all_folders()) == []
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))


def test_worker_is_not_given_the_keys_of_claude_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """An interpreter that writes down what it is told; libraries of the worker may send their environment anywhere."""
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nenv > "$4/environment.part"\nmv "$4/environment.part" "$4/environment"\n')
    python.chmod(0o755)
    for name in ("ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDECODE", "HF_TOKEN"):
        monkeypatch.setenv(name, "of the test")
    folder = service.start("train", TrainingOptions(model="m", data="d"), job_id="train-x", python=python)
    told = wait_until(lambda: (file := folder.path / "environment").exists() and file.read_text(), "the worker")
    names = {line.partition("=")[0] for line in told.splitlines() if line.endswith("=of the test")}
    assert names == {"HF_TOKEN"}, "the Hub's is for the worker"
    wait_until(lambda: service.reconcile(folder).finished, "the end")


def test_worker_that_ran_out_of_memory_on_cuda_is_started_again_with_what_saves_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Without CUDA graphs nothing is given back before a step ends: a smaller batch alone would not be all that helps."""
    facts, python = tmp_path / "facts.json", tmp_path / "python"
    facts.write_text(json.dumps({"system": "Linux", "container": False, "cuda": True}))
    monkeypatch.setenv("MLX_TRAINING_FACTS", str(facts))
    for name in ("MLX_USE_CUDA_GRAPHS", "MLX_MAX_MB_PER_BUFFER", "MLX_MAX_OPS_PER_BUFFER"):
        monkeypatch.delenv(name, raising=False)
    python.write_text(
        """#!/bin/sh
echo "graphs=${MLX_USE_CUDA_GRAPHS-default} buffer=${MLX_MAX_MB_PER_BUFFER-default}" >> "$4/starts"
echo '{"status": "failed", "why": "out of memory", "cause": "out-of-memory"}' > "$4/outcome.json"
exit 1
"""
    )
    python.chmod(0o755)
    options = TrainingOptions(model="m", data="d", batch_size=2, auto_recover=True)
    folder = service.start("train", options, job_id="train-x", python=python)
    wait_until(lambda: service.reconcile(folder).finished, "the end")
    first, *later = (folder.path / "starts").read_text().splitlines()
    assert first == "graphs=0 buffer=default"
    assert later == ["graphs=default buffer=100"] * 2


# Stands for an interpreter whose worker always runs out of memory: "stubborn" only when it is asked to stop.
SHORT_OF_MEMORY = """#!/bin/sh
echo started >> "$4/starts"
end() {
    echo '{"status": "failed", "why": "out of memory", "cause": "out-of-memory"}' > "$4/outcome.json"
    exit 1
}
trap 'end "$@"' TERM
[ -e "$4/stubborn" ] || end "$@"
while :; do sleep 0.05; done
"""


@pytest.mark.parametrize(("stopped", "starts"), [(False, 3), (True, 1)])
def test_after_an_out_of_memory_it_is_tried_again_unless_a_stop_was_asked_for(
    tmp_path: Path, stopped: bool, starts: int
):
    python = tmp_path / "python"
    python.write_text(SHORT_OF_MEMORY, encoding="utf-8")
    python.chmod(0o755)
    folder = store.create(spec(2).model_copy(update={"python": str(python)}))
    if stopped:
        (folder.path / "stubborn").touch()
    subprocess.run(launch.command(sys.executable, "mcp_server.jobs.runner", str(folder.path)), check=True)
    begun = folder.path / "starts"
    wait_until(begun.exists, "the worker")
    if stopped:
        service.ask_to_stop(folder, "stop")
    state = wait_until(lambda: (found := service.reconcile(folder)).finished and found, "the end")
    assert state.status == "failed"
    assert len(begun.read_text(encoding="utf-8").splitlines()) == starts
    assert len(read(folder).rungs) == starts - 1


# Stands for an interpreter whose worker does not end by itself when it is asked to.
STUBBORN = """#!/bin/sh
trap 'touch "$4/asked"' TERM
touch "$4/started"
while :; do
    sleep 0.05
    [ ! -e "$4/asked" ] || [ ! -e "$4/works" ] || touch "$4/metrics.jsonl"
    [ ! -e "$4/asked" ] || [ ! -e "$4/ends" ] || exit 0
done
"""


def stubborn(tmp_path: Path, grace: float, most: float, *marks: str) -> JobFolder:
    """A started job whose runner has these patiences."""
    python = tmp_path / "python"
    python.write_text(STUBBORN, encoding="utf-8")
    python.chmod(0o755)
    folder = store.create(spec(2).model_copy(update={"python": str(python), "created": time.time()}))
    for mark in marks:
        (folder.path / mark).touch()
    code = (
        "import sys\nfrom pathlib import Path\nfrom mcp_server.jobs import runner\nfrom mcp_server.jobs.store import JobFolder\n"
        f"runner.GRACE_SECONDS, runner.MOST_GRACE_SECONDS = {grace}, {most}\nrunner.Runner(JobFolder(Path(sys.argv[1]))).run()"
    )
    command = [sys.executable, "-c", code, str(folder.path)]
    subprocess.Popen(command, start_new_session=True, cwd=Path(__file__).parents[2])
    wait_until((folder.path / "started").exists, "the worker")
    return folder


def test_hung_worker_is_killed_however_often_it_is_asked_to_stop(tmp_path: Path):
    folder = stubborn(tmp_path, 1.0, 60.0)
    service.ask_to_stop(folder, "stop")
    begun = time.monotonic()
    wait_until(lambda: not service.ask_to_stop(folder, "stop"), "the kill", seconds=30)
    assert time.monotonic() - begun >= 0.9
    assert "SIGKILL" in (folder.state().why or "")


def test_worker_that_works_on_to_where_it_can_be_saved_is_not_killed(tmp_path: Path):
    folder = stubborn(tmp_path, 0.5, 60.0, "works")
    service.ask_to_stop(folder, "stop")
    wait_until((folder.path / "asked").exists, "the request")
    asked = time.monotonic()
    wait_until(lambda: time.monotonic() - asked > 2 or service.reconcile(folder).finished, "four times its grace")
    assert folder.state().status == "working"
    (folder.path / "ends").touch()
    wait_until(lambda: service.reconcile(folder).finished, "the end")
    assert "SIGKILL" not in (folder.state().why or "")


def test_worker_that_works_on_for_ever_is_killed_in_the_end(tmp_path: Path):
    folder = stubborn(tmp_path, 0.5, 2.0, "works")
    service.ask_to_stop(folder, "stop")
    wait_until(lambda: service.reconcile(folder).finished, "the kill", seconds=30)
    assert "SIGKILL" in (folder.state().why or "")


def test_forced_stop_after_a_gentle_one_does_not_wait(tmp_path: Path):
    folder = stubborn(tmp_path, 600.0, 600.0)
    service.ask_to_stop(folder, "stop")
    wait_until((folder.path / "asked").exists, "the request")
    service.ask_to_stop(folder, "kill")
    wait_until(lambda: service.reconcile(folder).finished, "the kill", seconds=30)


@contextlib.contextmanager
def full_disk() -> Generator[None]:
    """Nothing that this process writes fits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("action", ["stop", "kill"])
def test_job_is_stopped_on_a_full_disk(tmp_path: Path, action: service.StopAction):
    """A pause that was asked for before is not what a stop means."""
    folder = stubborn(tmp_path, 600.0 if action == "kill" else 0.5, 600.0)
    (folder.path / "stop.json").write_text('{"action": "pause"}')
    with full_disk():
        assert service.ask_to_stop(folder, action)
    wait_until(lambda: service.reconcile(folder).finished, "the end", seconds=30)
    assert folder.state().status == "cancelled"
    assert not folder.stop_request.exists()


def test_pause_that_can_not_be_recorded_says_so_and_the_job_goes_on(tmp_path: Path):
    folder = stubborn(tmp_path, 0.5, 600.0)
    with full_disk(), pytest.raises(JobError, match=r"pause of job train-x can't be recorded .*File too large"):
        service.ask_to_stop(folder, "pause")
    assert service.reconcile(folder).status == "working" and not (folder.path / "asked").exists()
    service.ask_to_stop(folder, "kill")
    wait_until(lambda: service.reconcile(folder).finished, "the kill", seconds=30)


OUT_OF_MEMORY = '{"status": "failed", "why": "rank 1 failed", "cause": "out-of-memory"}'


@pytest.mark.parametrize("word", ["", OUT_OF_MEMORY])
def test_worker_that_died_after_it_had_published_is_not_started_again_and_its_adapter_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
):
    """As when the system kills it in the test, for want of memory; or another rank, of which the first one's watcher tells."""
    python = tmp_path / "python"
    python.write_text(
        """#!/bin/sh
echo started >> "$4/starts"
echo '{"type": "phase", "time": 1, "name": "adapter saved", "path": "/p/adapters/a"}' >> "$4/metrics.jsonl"
echo "RuntimeError: [metal::malloc] Unable to allocate 9 bytes"
[ -z "$WORD" ] || echo "$WORD" > "$4/outcome.json"
exit 1
"""
    )
    monkeypatch.setenv("WORD", word)
    python.chmod(0o755)
    options = TrainingOptions(model="m", data="d", batch_size=2, auto_recover=True)
    folder = service.start("train", options, job_id="train-x", python=python)
    state = wait_until(lambda: (found := service.reconcile(folder)).finished and found, "the end")
    assert state.status == "failed" and "its adapter is in /p/adapters/a" in (state.why or "")
    assert (folder.path / "starts").read_text().splitlines() == ["started"]


def test_interpreter_that_vanished_while_the_job_was_queued_is_named(tmp_path: Path, home: Path):
    home.mkdir(exist_ok=True)
    held = lock.acquire(str(home / "gpu.lock"))
    assert held is not None
    lock.write_holder(held, {"job_id": "another"})
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    folder = service.start("train", TrainingOptions(model="m", data="d"), job_id="train-x", python=python)
    assert folder.state().status == "queued"
    python.unlink()
    os.close(held)
    state = wait_until(lambda: (found := service.reconcile(folder)).finished and found, "the end")
    assert state.status == "failed"
    assert "could not be started" in (state.why or "") and str(python) in (state.why or "")
    assert lock.read_holder(str(home / "gpu.lock")) is None or state.runner is not None


def test_somebody_who_only_looks_at_the_lock_is_no_reason_to_refuse(tmp_path: Path, home: Path):
    home.mkdir(exist_ok=True)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    changes = {"python": str(python), "if_busy": "refuse", "created": time.time()}
    folder = store.create(spec(2).model_copy(update=changes))
    with (home / "gpu.lock").open("w+") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)  # as lock.read_holder does, for a moment
        subprocess.run(launch.command(sys.executable, "mcp_server.jobs.runner", str(folder.path)), check=True)
        wait_until(lambda: queue.waiting() == [folder.job_id] or folder.state().finished, "it to be in line")
        asked = time.monotonic()
        wait_until(lambda: time.monotonic() - asked > 0.5 or folder.state().finished, "it to have tried")
    state = wait_until(lambda: (found := service.reconcile(folder)).finished and found, "the end")
    assert state.why != store.REFUSED


METAL = "libc++abi: terminating due to uncaught exception of type std::runtime_error: [METAL] Command buffer execution failed: "


@pytest.mark.parametrize(
    ("code", "said", "cause"),
    [
        (-signal.SIGABRT, f"{METAL}Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)", "out-of-memory"),
        (-signal.SIGABRT, f"{METAL}(0000000e:kIOGPUCommandBufferCallbackErrorImpactingInteractivity)", "gpu-watchdog"),
        (-signal.SIGSEGV, "step 3", None),
        (-signal.SIGKILL, f"{METAL}Insufficient Memory", None),
    ],
)  # fmt: skip
def test_abort_says_why_before_it_ends_the_process(tmp_path: Path, code: int, said: str, cause: str | None):
    """A kill from outside does not: what the worker had said is not its reason."""
    (tmp_path / "job.log").write_text(f"step 2\n{said}\n")
    outcome = describe_death(JobFolder(tmp_path), code, False, False)
    assert outcome.cause == cause
    assert (said in (outcome.why or "")) is (code != -signal.SIGKILL)


def test_abort_for_want_of_memory_is_tried_again_and_its_words_are_not_those_of_the_next_attempt(tmp_path: Path):
    python = tmp_path / "python"
    python.write_text(
        """#!/bin/sh
if [ ! -e "$4/aborted" ]; then
    touch "$4/aborted"
    echo "what():  [malloc_or_wait] Unable to allocate 9 bytes." >&2
    kill -ABRT $$
fi
kill -SEGV $$
"""
    )
    python.chmod(0o755)
    options = TrainingOptions(model="m", data="d", batch_size=4, auto_recover=True)
    folder = service.start("train", options, job_id="train-x", python=python)
    state = wait_until(lambda: (found := service.reconcile(folder)).finished and found, "the end")
    assert state.status == "failed" and "SIGSEGV" in (state.why or "") and "allocate" not in (state.why or "")
    assert len(read(folder).rungs) == 1


def test_last_words_about_memory_are_understood(tmp_path: Path):
    (tmp_path / "job.log").write_text("terminate called\nRuntimeError: [metal::malloc] Unable to allocate 9 bytes\n")
    assert describe_death(JobFolder(tmp_path), 1, False, False).cause == "out-of-memory"
