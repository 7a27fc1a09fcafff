"""What wakes a session: each piece of news once, with its numbers, and nothing that a tool has told already."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_server.jobs import news, store
from mcp_server.jobs.events import EventWriter
from mcp_server.jobs.process import ProcessIdentity
from mcp_server.jobs.store import JobFolder, JobSpec, JobState, Outcome

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(news, "POLL_SECONDS", 0.02)


@pytest.fixture
def job(home: Path) -> Iterator[JobFolder]:
    """A training that has reported two steps and a validation, and works: a sleeping process stands for its runner."""
    spec = JobSpec(
        job_id=store.new_id("train"),
        kind="train",
        created=time.time(),
        project=str(home),
        python=sys.executable,
        options={"adapter_path": "/p/adapters/a"},
    )
    folder = store.create(spec)
    events = EventWriter(folder.metrics)
    events.write("train", step=1, total=2, loss=2.0)
    events.write("train", step=2, total=2, loss=float("nan"))
    events.write("val", step=2, loss=1.23456)
    runner = subprocess.Popen(["sleep", "100"])
    folder.write_state(JobState(status="working", started=1000.0, runner=ProcessIdentity.of(runner.pid)))
    yield folder
    runner.kill()
    runner.wait()


def end(job: JobFolder, **state: Any) -> None:
    job.write_state(JobState.model_validate({"status": "completed", "started": 1000.0, "ended": 1090.0, **state}))


def payload(job: JobFolder, session: str = "s1", **answer: Any) -> str:
    """As the client tells a PostToolUse hook of a tool's structured answer."""
    told = {"job_id": job.job_id, "status": "working", **answer}
    return json.dumps({"session_id": session, "tool_response": json.dumps(told)})


def test_the_end_is_told_once_to_each_session_that_follows_the_job(job: JobFolder) -> None:
    end(job)

    text = news.follow(payload(job), "end")

    assert f"job {job.job_id} completed after 1 min 30 s. step 2 of 2, loss nan, validation loss 1.235" in text
    assert "run_benchmark(adapter_path='/p/adapters/a'" in text
    assert news.follow(payload(job), "end") == ""
    assert news.follow(payload(job, session="s2"), "end") == text


def test_a_failure_is_told_with_its_reason_and_the_alert_that_nobody_has_read(job: JobFolder) -> None:
    events = EventWriter(job.metrics)
    events.write("alert", kind="not-finite", message="loss is nan at step 2")
    end(job, status="failed", why="the loss is not a number;\nhalve learning_rate")

    lines = news.follow(payload(job), "end").splitlines()

    assert lines[1:3] == ["the loss is not a number; halve learning_rate", "loss is nan at step 2"]
    assert "read_training_log" in lines[3]


def test_the_summary_of_a_benchmark_is_part_of_its_news(job: JobFolder) -> None:
    job.write_outcome(Outcome(status="completed", result={"summary": "better: 2.1 to 0.4"}))
    end(job)

    assert "better: 2.1 to 0.4" in news.follow(payload(job), "end")


def test_an_end_that_a_tool_has_answered_is_not_told_again(job: JobFolder) -> None:
    end(job)
    assert news.follow(payload(job, status="completed"), "end") == ""

    assert news.follow(payload(job), "end") == ""


def test_an_urgent_alert_is_told_unless_it_was_read_and_others_never(job: JobFolder) -> None:
    events = EventWriter(job.metrics)
    events.write("alert", kind="plateau", message="flat")
    events.write("alert", kind="overfitting", message="validation loss rises")
    events.write("alert", kind="divergence", message="the loss rises")

    text = news.follow(payload(job, alerts=["validation loss rises"]), "alert")

    assert "the loss rises" in text
    assert "validation loss rises" not in text
    assert "flat" not in text


def test_alerts_are_left_to_the_end_of_a_job_that_ends_with_them(job: JobFolder) -> None:
    EventWriter(job.metrics).write("alert", kind="not-finite", message="loss is nan")
    end(job, status="failed")

    assert news.follow(payload(job), "alert") == ""
    assert "loss is nan" in news.follow(payload(job), "end")


def test_a_job_whose_processes_have_gone_without_a_word_is_told_as_lost(job: JobFolder) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    job.write_state(JobState(status="working", runner=ProcessIdentity(pid=gone.pid, start="1")))

    assert f"{job.job_id} lost" in news.follow(payload(job), "end")


def test_another_process_that_was_given_the_pid_is_not_taken_for_the_job(job: JobFolder) -> None:
    runner = job.state().runner
    assert runner is not None and news.Job(job.job_id, "s").status() == "working"
    job.write_state(JobState(status="working", runner=ProcessIdentity(pid=runner.pid, start="1")))
    assert news.Job(job.job_id, "s").status() == "lost"


def test_it_stops_waiting_when_the_folder_goes(job: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(news.time, "sleep", lambda seconds: shutil.rmtree(job.path, ignore_errors=True))

    assert news.follow(payload(job), "end") == ""


@pytest.mark.parametrize(
    "response", ["", "no JSON", "[1]", None, '{"job_id": "../../x", "status": "working"}', "{}", '{"job_id": ".."}']
)
def test_an_answer_without_a_job_is_nobodys_news(response: str | None, home: Path) -> None:
    assert news.follow(json.dumps({"session_id": "s", "tool_response": response}), "end") == ""


def test_the_hook_wakes_by_its_exit_code_and_only_at_a_prompt(job: JobFolder, home: Path) -> None:
    end(job)
    told = {"CLAUDE_CODE_ENTRYPOINT": "sdk-cli", "MLX_TRAINING_HOME": str(home), "PATH": os.environ["PATH"]}

    def hook(environment: dict[str, str]) -> tuple[int, str]:
        command = ["/bin/sh", str(ROOT / "hooks" / "run"), "wake.py", "end"]
        done = subprocess.run(command, input=payload(job), env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    assert hook(told) == (0, "")
    code, text = hook({**told, "CLAUDE_CODE_ENTRYPOINT": "cli"})
    assert code == 2
    assert text.startswith(f"mlx-training: job {job.job_id} completed")
