"""The worked examples of docs/examples: their shell blocks are run, and what the pages show and promise is what comes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_server.jobs import store
from mcp_server.training.ranks import read_hostfile

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs/examples"
END_OF_BLOCK = "== end of block =="

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def blocks(page: str) -> list[tuple[str, str]]:
    """The fenced blocks of a page as (language, text), in their order."""
    return re.findall(r"^```(\w*)\n(.*?)^```", (FOLDER / f"{page}.md").read_text(encoding="utf-8"), re.M | re.S)


def run(page: str, folder: Path) -> list[str]:
    """What each ```sh block of the page prints; they share one shell, as a reader's do. The first error fails the test."""
    programs = folder / "bin"
    programs.mkdir()
    for name, module in (("mlx-training", " -m mcp_server.cli"), ("python3", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{module} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    script = "set -eu\n" + "".join(
        f"{text}\necho '{END_OF_BLOCK}'\n" for language, text in blocks(page) if language == "sh"
    )
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "COLUMNS": "80",
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.split(f"{END_OF_BLOCK}\n")[:-1]


def plain(text: str) -> str:
    """Without what differs from run to run and place to place: numbers, folders, breaks of lines, frames of tables."""
    text = re.sub(r"\S*/(?=shop\b|home\b|jobs\b)", "", text)
    text = re.sub(r"(train|benchmark)-\d{8}-\d{6}-[0-9a-f]{4}", r"\1-JOB", text)
    text = re.sub(r"\d[\d.,:]*", "#", text)
    return re.sub(r"[\s┏┓┗┛┃│━─┳┻┡┩└┘┴┬╇├┤]+", " ", text).strip()


def shown_but_not_printed(page: str, printed: list[str]) -> list[str]:
    """The lines of the page's ```text blocks that the ```sh blocks before them did not print; "…" stands for what is left out."""
    missing: list[str] = []
    outputs = iter(printed)
    present = ""
    for language, text in blocks(page):
        if language == "sh":
            present = plain(next(outputs))
        elif language == "text":
            pieces = [piece for line in text.splitlines() for piece in line.split("…")]
            missing += [piece for piece in pieces if plain(piece) not in present]
    return missing


def _adapter_is_whole(folder: Path) -> None:
    names = {path.name for path in folder.iterdir()}
    assert {"adapters.safetensors", "adapter_config.json", "provenance.json"} <= names


def _chat(shop: Path, printed: list[str]) -> None:
    _adapter_is_whole(shop / "adapters/records")
    assert "The adapter is better than the base" in printed[-1]
    assert '{"item":"lamp","price":' in printed[-1]


def _completions(shop: Path, printed: list[str]) -> None:
    _adapter_is_whole(shop / "adapters/pairs")
    assert (shop / "pairs/preparation.json").exists()
    assert "The adapter is better than the base" in printed[-1]


def _text(shop: Path, printed: list[str]) -> None:
    _adapter_is_whole(shop / "adapters/sheets")
    assert "The adapter is better than the base" in printed[1]
    assert "- price:" in printed[2].partition("adapter:")[2]


def _resume(shop: Path, printed: list[str]) -> None:
    _adapter_is_whole(shop / "adapters/broken")
    assert "the same to the last bit" in printed[2]
    assert [job.state().status for job in _jobs()] == ["paused", "completed", "completed"]


def _phases(shop: Path, printed: list[str]) -> None:
    _adapter_is_whole(shop / "adapters/phases")
    events = [json.loads(line) for line in _jobs()[0].metrics.read_text(encoding="utf-8").splitlines()]
    rates = [event["learning_rate"] for event in events if event["type"] == "train"]
    assert rates == pytest.approx([2e-4, 2e-4, 5e-5, 1e-5])
    assert "# lr_schedule: 20:2e-4,10:5e-5,10:1e-5" in (_jobs()[0].path / "config.yaml").read_text(encoding="utf-8")


def _two(shop: Path, printed: list[str]) -> None:
    outcomes = [json.loads((job.path / "outcome.json").read_text(encoding="utf-8")) for job in _jobs()]
    first, second = (outcome["result"]["final_train_loss"] for outcome in outcomes)
    assert second == pytest.approx(first, abs=1e-4)
    hostfile = shop / "hosts.json"
    hostfile.write_text(next(text for language, text in blocks("two-macs") if language == "json"), encoding="utf-8")
    hosts, backend, _ = read_hostfile(hostfile)
    assert (len(hosts), backend) == (2, "ring")


def _report(shop: Path, printed: list[str]) -> None:
    assert "ranking" in printed[0]
    assert json.loads((shop / "before-after.json").read_text())["comparison"]["verdict"] == "better"
    page = Path(printed[1].splitlines()[-1]).read_text(encoding="utf-8")
    assert "better than the base" in page
    assert "<script" not in page


def _jobs() -> list[store.JobFolder]:
    return sorted(store.all_folders(), key=lambda job: job.job_id)


# Those without the mark are the short form that `make test` keeps; `make e2e` runs all.
PAGES: dict[str, Callable[[Path, list[str]], None]] = {
    "chat": _chat,
    "completions": _completions,
    "text": _text,
    "resume": _resume,
    "multi-phase": _phases,
    "two-macs": _two,
    "report": _report,
}
LONG = ("completions", "resume", "two-macs", "report")


@pytest.mark.parametrize("page", [pytest.param(page, marks=pytest.mark.slow if page in LONG else ()) for page in PAGES])
def test_example_runs_and_prints_what_its_page_shows(page: str, tmp_path: Path) -> None:
    pytest.importorskip("mlx_lm", reason="mlx-lm is not installed here (uv sync --extra mlx)")
    printed = run(page, tmp_path)
    print(*printed, sep=END_OF_BLOCK)  # `pytest -s` shows what to put into the page
    PAGES[page](tmp_path / "shop", printed)
    assert shown_but_not_printed(page, printed) == []
    assert kept_but_not_documented(tmp_path / "home") == set()


def kept_but_not_documented(home: Path) -> set[str]:
    """Names in the state folder and the jobs' folders that docs/settings.md does not give."""
    documented = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    paths = [*home.iterdir(), *(path for job in _jobs() for path in job.path.iterdir())]
    return {path.name for path in paths if not re.search(rf"`{re.escape(path.name)}[`/]", documented)}


def test_every_page_has_a_test_of_its_promises() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == PAGES.keys()


def test_a_line_that_is_not_printed_would_be_noticed() -> None:
    printed = ["" for language, _ in blocks("chat") if language == "sh"]
    assert shown_but_not_printed("chat", printed) != []
