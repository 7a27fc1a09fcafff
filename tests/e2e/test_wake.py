"""Wake-ups at the prompt: what happens to a job reaches the agent that started it, once, and nobody else."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Generator

import psutil

from mcp_server.demo import BASE, task
from mcp_server.jobs import lock
from mcp_server.jobs.events import EventWriter
from mcp_server.jobs.store import JobFolder
from tests.helpers import wait_until

from .client import REPOSITORY, SPECIALIST, TOOL, Claude, agent_definition, ask
from .scripted_model import MAIN, JsonObject, Request, Script, Turn, ask_agent
from .terminal import Terminal

HOOK = str(REPOSITORY / "hooks" / "wake.py")


def watchers(claude: Claude) -> list[int]:
    """The pids of the processes that wait for jobs on behalf of this person's sessions."""
    found: list[int] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if HOOK in process.cmdline() and process.environ().get("HOME") == str(claude.home):
                found.append(process.pid)
    return found


def prompt(claude: Claude, main: object, environment: dict[str, str], **more: object) -> Terminal:
    return Terminal(
        claude,
        main,  # pyright: ignore[reportArgumentType]
        plugin_dirs=[REPOSITORY],
        allowed_tools=[f"{TOOL}*"],
        environment=environment,
        **more,  # pyright: ignore[reportArgumentType]
    )


def start_training(claude: Claude, iters: int) -> Generator[Turn, Request, JsonObject]:
    task.write_dataset(claude.project / "data")
    return (
        yield from ask(
            "start_lora_training",
            **{**task.TRAINING, "iters": iters, "save_every": 1000},
            model=str(BASE),
            data="data",
            adapter_path="adapters/a",
        )
    )


def test_the_end_of_a_job_that_the_specialist_started_wakes_its_own_session_once(
    claude: Claude, mlx_jobs: dict[str, str]
) -> None:
    _, body = agent_definition()

    def specialist(request: Request) -> Script:
        started = yield from ask("convert_model", model=str(BASE), mlx_path="models/m", wait_seconds=0)
        yield f"it runs as {started['job_id']}"

    def main(request: Request) -> Script:
        yield from ask("check_platform")  # the older client's subagents only get tools of a server that is up
        request = yield ask_agent(SPECIALIST, "convert the model")
        request = yield "the specialist has begun"
        while "mlx-training: job" not in request.text:  # at a prompt the newest client hands the report in later
            request = yield "I wait"
        yield f"woken by {request.text[request.text.rindex('mlx-training: job') :]}"

    with prompt(claude, ["nothing to do here"], mlx_jobs) as other:
        other.submit("hello")
        other.wait_for_text("nothing to do here")
        with prompt(claude, main, mlx_jobs, agents={body[:200]: specialist}) as terminal:
            terminal.submit("convert it")
            terminal.wait_for_text("the specialist has begun", 60)
            terminal.wait_for_text("woken by mlx-training: job convert-", 90)
            wait_until(lambda: not watchers(claude), "the watchers to end")

    terminal.model.check()
    other.model.check()
    told = terminal.model.of(MAIN)[-1].text
    assert told.count("mlx-training: job convert-") == 1
    assert "completed after" in told
    assert len(other.model.of(MAIN)) == 1


def test_an_end_that_the_agent_has_read_itself_wakes_nobody(claude: Claude, mlx_jobs: dict[str, str]) -> None:
    def main(request: Request) -> Script:
        started = yield from ask("convert_model", model=str(BASE), mlx_path="models/m", wait_seconds=0)
        log = yield from ask("read_training_log", job_id=started["job_id"], wait_seconds=120, until="end")
        yield f"I saw that it {log['status']}"

    with prompt(claude, main, mlx_jobs) as terminal:
        terminal.submit("convert it")
        terminal.wait_for_text("I saw that it completed", 120)
        wait_until(lambda: not watchers(claude), "the watchers to end")

    terminal.model.check()  # a wake would have been a request beyond the script


def test_an_alert_wakes_the_session_while_the_job_goes_on_and_its_end_wakes_it_again(
    claude: Claude, mlx_jobs: dict[str, str]
) -> None:
    def main(request: Request) -> Script:
        yield from start_training(claude, iters=100_000)
        request = yield "training has begun"
        assert "is running and raised an alert" in request.text
        assert "nothing was reported for 7 minutes" in request.text
        request = yield "the alert has come"
        yield f"then {request.text[request.text.rindex('mlx-training: job') :]}"

    with prompt(claude, main, mlx_jobs) as terminal:
        terminal.submit("train it")
        terminal.wait_for_text("training has begun", 60)
        wait_until(lambda: len(watchers(claude)) == 2, "the two watchers")
        [path] = (claude.state / "jobs").iterdir()
        job = JobFolder(path)
        # As the runner's own watch over stalls says it.
        EventWriter(job.metrics).write(
            "alert", kind="stalled", level="warning", message="nothing was reported for 7 minutes"
        )
        terminal.wait_for_text("the alert has come", 60)
        kill(job)
        terminal.wait_for_text("then mlx-training: job train-", 60)
        wait_until(lambda: not watchers(claude), "the watchers to end")

    terminal.model.check()
    told = terminal.model.of(MAIN)[-1].text
    assert told.count("nothing was reported for 7 minutes") == 1
    assert "lost" in told


def kill(job: JobFolder) -> None:
    """As a power cut does: runner and worker end without a word."""
    state = job.state()
    for identity in (state.runner, state.worker):
        assert identity is not None
        psutil.Process(identity.pid).kill()


def test_nothing_of_a_session_is_left_running_but_its_job(claude: Claude, mlx_jobs: dict[str, str]) -> None:
    def main(request: Request) -> Script:
        yield from start_training(claude, iters=100_000)
        yield "training has begun"

    with prompt(claude, main, mlx_jobs) as terminal:
        terminal.submit("train it")
        terminal.wait_for_text("training has begun", 60)
        wait_until(lambda: len(watchers(claude)) == 2, "the two watchers")

    wait_until(lambda: not watchers(claude), "the watchers to end with the client")
    [path] = (claude.state / "jobs").iterdir()
    assert JobFolder(path).state().status == "working"
    kill(JobFolder(path))


def test_a_printed_session_does_not_wait_for_its_job(claude: Claude, mlx_jobs: dict[str, str]) -> None:
    def main(request: Request) -> Script:
        yield from start_training(claude, iters=100_000)
        yield "training has begun"

    session = claude.run(main=main, plugin_dirs=[REPOSITORY], allowed_tools=[f"{TOOL}*"], environment=mlx_jobs)

    assert session.answer == "training has begun"
    assert not watchers(claude)
    [path] = (claude.state / "jobs").iterdir()
    assert JobFolder(path).state().status == "working"
    kill(JobFolder(path))


def test_the_status_line_shows_the_running_job(claude: Claude, mlx_jobs: dict[str, str]) -> None:
    command = claude.plugin_data / "mlx-training-inline" / "status-line"
    # Drawn on the screen are only the cells that changed, so what the client was given is kept beside.
    given = claude.home / "given"
    setting = {"statusLine": {"type": "command", "command": f"{command} | tee -a {given}", "refreshInterval": 1}}
    (claude.home / ".claude" / "settings.json").write_text(json.dumps(setting))
    person = {"HOME": str(claude.home)}

    def main(request: Request) -> Script:
        yield from start_training(claude, iters=100_000)
        yield "training has begun"

    with prompt(claude, main, mlx_jobs) as terminal:
        terminal.submit("train it")
        terminal.wait_for_text("training has begun", 60)
        full = re.compile(r"MLX train · step \d+/100000 · loss \d+\.\d{3} · .+ left")
        terminal.wait_until(lambda: full.search(given.read_text()) is not None, "the status line", 60)
    [path] = (claude.state / "jobs").iterdir()
    kill(JobFolder(path))
    wait_until(lambda: lock.read_holder(str(claude.state / "gpu.lock")) is None, "the job to be gone")
    assert subprocess.run([command], input="{}", capture_output=True, text=True, check=True, env=person).stdout == ""
