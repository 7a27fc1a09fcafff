"""The report and the local page in headless Chromium, as people see them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcp_server.reports.write import write_report
from mcp_server.training.request import TrainingRequest
from mcp_server.training.start import start_training
from tests.helpers import steps_done, training, wait_until
from tests.recorded import BENCHMARK, course, make_job

from . import install

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)><svg onload=alert(3)>"


def look(*wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """What Chromium sees of each page; skips with the reason where it can't be had."""
    try:
        folder, variables = install.browser()
    except install.Unavailable as reason:
        pytest.skip(str(reason))
    script = Path(__file__).with_name("browser.mjs")
    command = ["node", str(script), json.dumps(wanted)]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | variables, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.fixture
def site(home: Path) -> Iterator[str]:
    """The address of a running ``mlx-training ui``."""
    command = [sys.executable, "-m", "mcp_server.cli", "ui"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().strip()
    process.kill()
    process.wait()


def test_report_opens_from_a_file_in_any_window_and_light(home: Path):
    events = [*course(400), {"type": "alert", "kind": "plateau", "level": "warning", "step": 7, "message": HOSTILE}]
    samples = [{"prompt": HOSTILE, "reference": "x" * 400, "base": HOSTILE, "adapter": HOSTILE}]
    benchmark = make_job(
        "benchmark-20260101-010000-bbbb", result=BENCHMARK | {"samples": samples}, adapter_path="/p/adapters/tone"
    )
    trained = make_job(events=events, adapter_path="/p/adapters/tone-" + "long" * 30)
    urls = [write_report(folder).as_uri() for folder in (trained, benchmark)]
    looks = [(1000, "light"), (1000, "dark"), (340, "light")]
    pages = look(*({"url": url, "width": width, "scheme": scheme} for url in urls for width, scheme in looks))
    for page, url in zip(pages, [url for url in urls for _ in looks], strict=True):
        assert page["errors"] == [], "no script ran, no policy was broken"
        assert page["requests"] == [url], "nothing else was loaded"
        assert page["overflow"] <= 0
        assert "<script>alert(1)</script>" in page["text"], "hostile text is text"
    wide, dark, narrow = pages[:3]
    assert (wide["charts"], narrow["charts"]) == (4, 4), "each chart is drawn once, for its window"
    assert wide["background"] != dark["background"] and wide["curve"] != dark["curve"]
    assert min(page["smallest"] for page in pages[:3]) >= 9, "the numbers of a narrow chart can still be read"


@pytest.mark.integration
def test_local_page_follows_a_running_job_by_itself(site: str, project: Path):
    arguments = training(iters=4000, steps_per_report=1)
    started = start_training(TrainingRequest.model_validate(arguments))
    wait_until(lambda: steps_done(started.job_id) >= 3, "steps")
    address = f"{site}jobs/{started.job_id}"
    listed, job, dark = look(
        {"url": site, "until": "changes"},
        {"url": address, "until": "changes", "open": True},
        {"url": address, "width": 340, "scheme": "dark"},
    )
    for page in (listed, job, dark):
        assert page["errors"] == []
        assert page["status"] == 200
        assert all(url.startswith(site) for url in page["requests"]), "nothing comes from elsewhere"
        assert page["overflow"] <= 0
    assert "working" in listed["text"] and "of 1 jobs" in listed["text"]
    assert "of 4,000" in job["text"] and job["charts"] == 4
    assert job["opened"] == 1, "what the reader opened stays open"
    refused = look({"url": site.replace(site.split("/")[3], "wrong")})[0]
    assert refused["status"] == 403
    assert started.job_id not in refused["text"]
