"""What is shown of real jobs: pictures in tool results, reports, the list of adapters, the terminal."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp_types import ImageContent
from rich.console import Console

from mcp_server.cli import main
from mcp_server.cli.watch import frame
from mcp_server.jobs import store
from mcp_server.jobs.files import read_json
from tests.helpers import call, end_of, refusal, steps_done, training, wait_until

pytestmark = [pytest.mark.anyio, pytest.mark.integration]


async def pictures(client: Client, **arguments: Any) -> tuple[dict[str, Any], list[bytes]]:
    """The structured result and the PNGs beside it."""
    result = await client.call_tool("read_training_log", arguments)
    assert not result.is_error, result.content
    images = [block for block in result.content if isinstance(block, ImageContent)]
    assert all(image.mime_type == "image/png" for image in images)
    assert result.structured_content is not None
    return result.structured_content, [base64.b64decode(image.data) for image in images]


def size(png: bytes) -> tuple[int, int]:
    """Width and height, from the PNG's own header."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


async def test_a_run_is_seen_from_its_first_step_to_its_proof(client: Client, project: Path):
    started = await call(client, "start_lora_training", **training(iters=8, steps_per_eval=2))
    job_id = started["job_id"]
    await end_of(client, job_id)
    folder = store.get(job_id)
    news, drawn = await pictures(client, job_id=job_id)
    assert [size(png) for png in drawn] == [(880, 495)]
    assert drawn[0] == (folder.path / "loss.png").read_bytes() == (project / "adapters/test/loss.png").read_bytes()
    assert news["report"] == str(folder.report)
    first = folder.report.read_text(encoding="utf-8")
    assert "completed" in first and "not been benchmarked" in first and "8 of 8 steps" in first
    assert (await pictures(client, job_id=job_id, image=False))[1] == []

    answer = await call(
        client, "run_benchmark", model="model", adapter_path="adapters/test", data="data", num_prompts=2, speed_trials=1
    )
    summary = answer["report"]["summary"]
    for job in (answer["job_id"], job_id):
        text = store.get(job).report.read_text(encoding="utf-8")
        assert summary.partition(":")[0] in text, "benchmark and training both tell of it"
    listed = await call(client, "list_adapters")
    best = listed["adapters"][0]
    assert (best["path"], best["job_id"], best["steps"]) == ("adapters/test", job_id, 8)
    assert best["benchmark"]["job_id"] == answer["job_id"]
    assert best["train_rows"] == 200
    provenance = read_json(project / "adapters/test/provenance.json") or {}
    assert provenance["data"]["rows"] == {"train": 200, "valid": 20}

    again = await call(client, "start_lora_training", **listed["best"]["arguments"])
    await end_of(client, again["job_id"])
    ours = (Path(again["adapter_path"]) / "adapters.safetensors").read_bytes()
    assert ours == (project / "adapters/test/adapters.safetensors").read_bytes(), "repeated to the last bit"
    compared = (await call(client, "list_adapters", compare=[job_id, again["job_id"]]))["comparison"]
    assert compared["options"] == {} and compared["data"] == {}
    assert compared["results"]["val_loss"][0] == compared["results"]["val_loss"][1]
    assert compared["benchmark"]["verdict"][1] is None

    _, both = await pictures(client, job_id=job_id, compare_with=[again["job_id"]])
    assert len(both) == 1 and both[0] != drawn[0]
    assert "no-such-job" in await refusal(client, "read_training_log", job_id=job_id, compare_with=["no-such-job"])


async def test_running_and_stopped_jobs_are_seen_too(client: Client, project: Path):
    started = await call(client, "start_lora_training", **training(iters=4000))
    job_id = started["job_id"]
    wait_until(lambda: steps_done(job_id) >= 4, "steps")
    assert (await pictures(client, job_id=job_id))[1] == [], "a picture costs tokens: only when asked for"
    news, drawn = await pictures(client, job_id=job_id, image=True)
    assert len(drawn) == 1 and news["status"] == "working"
    written = await call(client, "make_report", job_id=job_id)
    assert "step" in written["summary"] and "working" in Path(written["path"]).read_text(encoding="utf-8")
    await call(client, "stop_job", job_id=job_id)
    assert "It was stopped" in store.get(job_id).report.read_text(encoding="utf-8")
    adapter = (await call(client, "list_adapters"))["adapters"][0]
    assert adapter["steps"] == steps_done(job_id), "an adapter of a stopped run is known by its losses too"
    assert adapter["val_loss"] > 0


async def test_without_matplotlib_there_are_words_and_a_line(
    client: Client, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "blocked/matplotlib").mkdir(parents=True)
    (tmp_path / "blocked/matplotlib/__init__.py").write_text("raise ImportError('none here')", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "blocked"))
    started = await call(client, "start_lora_training", **training())
    await end_of(client, started["job_id"])
    news, drawn = await pictures(client, job_id=started["job_id"])
    assert drawn == [] and "picture" not in news
    news, drawn = await pictures(client, job_id=started["job_id"], image=True)
    assert drawn == []
    assert "matplotlib is missing" in news["picture"]
    assert "█" in news["sparkline"]


async def test_job_without_losses_says_so(client: Client, project: Path):
    converted = await call(client, "convert_model", model="model", mlx_path="4bit", dtype="float32")
    news, drawn = await pictures(client, job_id=converted["job_id"], image=True)
    assert drawn == [] and "has reported no loss" in news["picture"]


async def test_watch_fits_the_terminal_and_ends_with_the_job(
    client: Client, project: Path, capsys: pytest.CaptureFixture[str]
):
    started = await call(client, "start_lora_training", **training(iters=30, steps_per_report=1))
    job_id = started["job_id"]
    watching = subprocess.Popen(
        [sys.executable, "-m", "mcp_server.cli", "watch"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    await end_of(client, job_id)
    said, _ = watching.communicate(timeout=60)
    assert watching.returncode == 0
    assert f"{job_id}  completed" in said
    for width in (80, 120):
        screen = io.StringIO()
        Console(file=screen, width=width, force_terminal=False).print(frame(store.get(job_id), width))
        lines = screen.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        assert any("⠀" in line or "⡇" in line for line in lines), "the curve"
        for word in ("training ", "validation ", "tokens/s", "memory", "step 30 of 30"):
            assert any(word in line for line in lines), word
    assert main(["watch", job_id, "--once"]) == 0
    assert "step 30 of 30" in capsys.readouterr().out
    png = project / "curves.png"
    assert main(["log", job_id, "--picture", "curves.png", "--compare-with", job_id]) == 0
    assert size(png.read_bytes()) == (880, 495)
    assert main(["log", job_id, "--picture", "curves.png"]) == 1, "nothing is overwritten"
    capsys.readouterr()
    assert main(["report", job_id]) == 0
    assert capsys.readouterr().out.strip() == str(store.get(job_id).report)
    assert main(["report", job_id, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["path"] == str(store.get(job_id).report)
    assert main(["adapters"]) == 0
    assert "repeat it with" in capsys.readouterr().out
    assert main(["adapters", "--compare", "adapters/test", job_id, "--json"]) == 0
    assert '"comparison"' in capsys.readouterr().out


def drain(terminal: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(terminal, 65536):
            pass


async def test_leaving_watch_leaves_the_job(client: Client, project: Path):
    started = await call(client, "start_lora_training", **training(iters=4000))
    job_id = started["job_id"]
    wait_until(lambda: steps_done(job_id) >= 2, "steps")
    command = [sys.executable, "-m", "mcp_server.cli", "watch", job_id]
    screen, terminal = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "40"}
    watching = subprocess.Popen(command, stdout=terminal, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(terminal)
    shown = ""
    while "training" not in shown:
        shown += os.read(screen, 65536).decode("utf-8", "replace")
    # The terminal goes on reading, or what watch draws last would wait for it.
    threading.Thread(target=drain, args=(screen,), daemon=True).start()
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=30)
    assert watching.returncode == 130
    os.close(screen)
    assert "the job goes on" in said and f"mlx-training stop {job_id}" in said
    before = steps_done(job_id)
    wait_until(lambda: steps_done(job_id) > before, "the job to go on")
    await call(client, "stop_job", job_id=job_id, action="kill")
