"""report.html: one file that needs nothing, runs nothing, and shows no secret."""

from __future__ import annotations

import argparse
import html.parser
import json
import os
import shlex
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mcp_server.cli import benchmark, models
from mcp_server.cli.options import Options, read_options
from mcp_server.conversion.options import ConvertOptions
from mcp_server.errors import JobError, PathError
from mcp_server.evaluation.adapters import candidates
from mcp_server.evaluation.options import BenchmarkOptions
from mcp_server.jobs import store
from mcp_server.jobs.store import JobSpec, JobState
from mcp_server.reports.facts import collect
from mcp_server.reports.write import write_final_reports, write_report
from tests.recorded import BENCHMARK, course, make_job

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'><svg onload=alert(3)>"
TOKEN = "hf_" + "a1B2" * 9


class Page(html.parser.HTMLParser):
    """Elements, their attributes, and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def page_of(folder: store.JobFolder) -> Page:
    return Page(write_report(folder).read_text(encoding="utf-8"))


def adapter_of(tmp_path: Path, job_id: str, name: str = "tone") -> str:
    """An adapter folder as a training leaves it."""
    folder = tmp_path / "adapters" / name
    folder.mkdir(parents=True)
    (folder / "adapters.safetensors").write_bytes(b"x")
    os.utime(folder / "adapters.safetensors", (1.0, 1.0))
    record = {"job_id": job_id, "data": {"files": {"train.jsonl": "sha256:abc"}, "rows": {"train": 40}}}
    (folder / "provenance.json").write_text(json.dumps(record), encoding="utf-8")
    return str(folder)


def test_it_says_what_was_done_and_what_came_of_it(tmp_path: Path):
    job_id = "train-20260101-000000-aaaa"
    adapter = adapter_of(tmp_path, job_id)
    result = {"steps": 20, "weights_of_step": 20}
    folder = make_job(job_id, course(), result=result, iters=20, batch_size=2, adapter_path=adapter, learning_rate=3e-5)
    make_job("benchmark-20260101-010000-bbbb", adapter_path=adapter, result=BENCHMARK)
    page = page_of(folder)
    for said in (
        "LoRA of rank 8 on the last 16 layers of model, 20 of 20 steps",
        "fell from 1.94 to 0.8",
        "lowest validation loss was 1 at step 20",
        "The adapter is better than the base",
        "1,234 tokens/s" if "1,234 tokens/s" in page.text else "1,235 tokens/s",
        "6 GB",
        "because",
        "sha256:abc",
        "seen 1 times",
        "mlx-training train --model some/model",
    ):
        assert said in page.text, said
    assert "--adapter-path" not in page.text, "repeating must not aim at the adapter that is there"
    tags = [tag for tag, _ in page.elements]
    assert tags.count("figure") == 4, "loss, learning rate, memory, speed"


def test_what_differs_from_the_defaults_comes_before_everything():
    text = page_of(make_job(events=course(), learning_rate=3e-5)).text
    changed, _, every = text.partition("All ")
    assert "3e-05" in changed
    assert "grad_checkpoint" not in changed.partition("Configuration")[2]
    assert "grad_checkpoint" in every


def test_it_needs_no_network_and_no_other_file():
    page = page_of(make_job(events=course()))
    assert not {"script", "link", "iframe", "img", "object", "embed", "base", "form"} & {
        tag for tag, _ in page.elements
    }
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            assert name not in ("src", "href", "srcdoc", "action", "style"), (tag, name, value)
    policy = next(attributes["content"] for _, attributes in page.elements if attributes.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'sha256-")


def test_hostile_text_stays_text_wherever_it_comes_from(tmp_path: Path):
    samples = [{"prompt": HOSTILE, "reference": HOSTILE, "base": HOSTILE, "adapter": HOSTILE}]
    events = [*course(), {"type": "alert", "kind": HOSTILE, "level": HOSTILE, "step": 3, "message": HOSTILE}]
    events += [{"type": "phase", "name": HOSTILE}, {"type": "data", "rows": {HOSTILE: 3}, "digest": HOSTILE}]
    options: dict[str, Any] = {"model": HOSTILE, "data": HOSTILE, "adapter_path": f"/x/{HOSTILE}"}
    trained = make_job(events=events, status="failed", why=HOSTILE, **options)
    measured = BENCHMARK | {"samples": samples, "summary": HOSTILE}
    benchmark = make_job("benchmark-20260101-010000-bbbb", result=measured, adapter_path=f"/x/{HOSTILE}", model=HOSTILE)
    for folder in (trained, benchmark):
        page = page_of(folder)
        assert not {"script", "img"} & {tag for tag, _ in page.elements}
        assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)
        assert "<script>alert(1)</script>" in page.text, "shown as it is"


def test_secrets_are_never_in_it():
    hub: dict[str, Any] = {"path": "org/data", "config": {"token": "plain-looking-secret", "auth": TOKEN}}
    events = [*course(), {"type": "alert", "kind": "x", "message": f"denied for {TOKEN}", "step": 1}]
    folder = make_job(events=events, status="failed", why=f"401 with {TOKEN}", hf_dataset=hub)
    text = write_report(folder).read_text(encoding="utf-8")
    assert TOKEN not in text
    assert "plain-looking-secret" not in text
    assert "[Hugging Face token removed]" in text
    assert "org/data" in text


@pytest.mark.parametrize(
    "events",
    [
        [],
        course(1),
        [*course(3), {"type": "train", "step": 4, "loss": "nan", "learning_rate": "nan"}],
        [{"type": "phase"}],
    ],
    ids=["nothing", "one step", "nan", "odd event"],
)
def test_every_state_of_a_log_has_a_page(events: list[dict[str, Any]]):
    page = page_of(make_job(events=events, status="lost", why="power cut"))
    assert "It was lost: power cut." in page.text
    assert "nan," not in page.text


def test_options_and_reports_of_another_version_are_shown_as_they_are():
    folder = make_job(events=course(), option_of_tomorrow=5)
    assert "option_of_tomorrow" in page_of(folder).text
    other = make_job("benchmark-20260101-010000-bbbb", result={"of": "tomorrow"})
    assert "benchmark" in page_of(other).text


def test_benchmark_renews_the_report_of_the_training_it_measured(tmp_path: Path):
    trained = make_job(events=course(), adapter_path=adapter_of(tmp_path, "train-20260101-000000-aaaa"))
    before = write_report(trained).read_text(encoding="utf-8")
    assert "not been benchmarked" in before
    options = trained.spec().options
    benchmark = make_job("benchmark-20260101-010000-bbbb", result=BENCHMARK, adapter_path=options["adapter_path"])
    write_final_reports(benchmark, benchmark.state())
    assert "better than the base" in benchmark.report.read_text(encoding="utf-8")
    assert "better than the base" in trained.report.read_text(encoding="utf-8")


def test_benchmark_of_a_jobs_checkpoints_names_the_one_that_its_figures_are_of(tmp_path: Path):
    adapter = adapter_of(tmp_path, "train-20260101-000000-aaaa")
    trained = make_job(events=course(), adapter_path=adapter)
    first = "/jobs/train-1/checkpoints/best-0000003"
    lines = [{"name": "best-0000003", "adapter_path": first, "loss": 0.5}, {"name": "base", "loss": 2.5}]
    ranked = BENCHMARK | {"adapter_path": first, "ranking": lines}
    make_job("benchmark-20260101-010000-bbbb", adapter_path=adapter, result=ranked)
    text = page_of(trained).text
    assert "best-0000003: loss -2 on 12 rows" in text
    assert ">adapter</th>" not in write_report(trained).read_text(encoding="utf-8")


def test_benchmark_of_several_adapters_is_in_the_report_of_each_training_with_its_own_figures(tmp_path: Path):
    ids = ["train-20260101-000000-aaaa", "train-20260101-000000-bbbb"]
    first, second = (adapter_of(tmp_path, job_id, name) for job_id, name in zip(ids, ("first", "second"), strict=True))
    trained = [make_job(job_id, course(), adapter_path=at) for job_id, at in zip(ids, (first, second), strict=True)]
    lines = [
        {"name": "first", "adapter_path": first, "loss": 0.5, "loss_difference": -2.0, "verdict": "better"},
        {"name": "base", "loss": 2.5},
        {"name": "second", "adapter_path": second, "loss": 3.5, "loss_difference": 1.0, "verdict": "worse"},
    ]
    summary = "Adapter first (first of 2) is better than the base: loss 2.5 → 0.5"
    ranked = BENCHMARK | {"adapter_path": first, "ranking": lines, "summary": summary}
    done = make_job("benchmark-20260101-010000-cccc", adapter_path=None, adapters=[first, second], result=ranked)
    write_final_reports(done, done.state())
    pages = [Page(folder.report.read_text(encoding="utf-8")).text for folder in trained]
    for page in pages:
        assert summary in page
        assert "not been benchmarked" not in page
    own = "This training's own adapter, second: loss 3.5, worse."
    assert [own in page for page in pages] == [False, True]
    assert ["loss -2 on 12 rows" in page for page in pages] == [True, False]
    assert ["loss +1 on 12 rows" in page for page in pages] == [False, True]


def asked_by(command: str | None, commands: ModuleType, model: type[Options]) -> Options:
    """What the command line makes of a page's command."""
    parser = argparse.ArgumentParser(prog="mlx-training")
    commands.add_commands(parser.add_subparsers())
    assert command is not None
    return read_options(parser.parse_args(shlex.split(command)[1:]), model)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_command_of_a_benchmark_names_its_adapters_once_so_that_it_is_accepted(tmp_path: Path, number: int):
    folders = [tmp_path / f"adapter-{place}" for place in range(number)]
    for folder in folders:
        folder.mkdir()
        settings = {"num_layers": 2, "lora_parameters": {"rank": 8, "scale": 20.0, "dropout": 0.0}}
        (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
        (folder / "adapters.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    names = [str(folder) for folder in folders]
    # As start_benchmark writes it for a training's checkpoints: all three name adapters.
    spec: dict[str, Any] = {"adapter_path": names[0], "adapters": names, "job_id": "train-1"} if names else {}
    job = make_job("benchmark-20260101-010000-bbbb", result=BENCHMARK, num_prompts=0, tasks=["arc_easy"], **spec)
    again = asked_by(collect(job).command, benchmark, BenchmarkOptions)
    assert candidates(again).folders == folders
    assert (again.model, again.num_prompts, again.tasks) == ("some/model", 0, ["arc_easy"])


def test_command_of_a_conversion_names_a_folder_that_is_not_there_yet(tmp_path: Path):
    made = tmp_path / "models/x-4bit"
    spec = {"job_id": "convert-1", "kind": "convert", "created": 1.0, "project": "/project", "python": "python"}
    job = store.create(JobSpec.model_validate(spec | {"options": {"model": "some/model", "mlx_path": str(made)}}))
    job.write_state(JobState(status="completed"))
    for free in (made, Path(f"{made}-2"), Path(f"{made}-3")):
        assert asked_by(collect(job).command, models, ConvertOptions).mlx_path == str(free)
        free.mkdir(parents=True)


def test_page_of_a_benchmark_shows_what_its_verdict_rests_on(tmp_path: Path):
    adapter = adapter_of(tmp_path, "train-20260101-000000-aaaa")
    lines = [
        {"name": "x", "adapter_path": adapter, "loss": 0.5, "loss_difference": -2.0, "interval_95": [-2.25, -1.75]},
        {"name": "base", "loss": 2.5},
    ]
    tasks = [
        {"task": "arc_easy", "metric": "acc", "examples": 40, "base": 0.25, "adapter": 0.3, "verdict": "no evidence"}
    ]
    note = "the first of 5 was chosen on these rows, which flatters it"
    measured = BENCHMARK | {
        "split": "valid",
        "notes": [note],
        "tasks": tasks,
        "ranking": lines,
        "adapter_path": adapter,
    }
    measured["base"] = BENCHMARK["base"] | {"own_metric": 12.5}
    measured["adapter"] = BENCHMARK["adapter"] | {"own_metric": -3.0}
    text = page_of(make_job("benchmark-20260101-010000-bbbb", adapter_path=adapter, result=measured)).text
    for said in (
        "12.5-3",
        "0.0%75.0%",
        "valid.jsonl of /project/data, 99 counted tokens",
        "Samples of valid.jsonl",
        "on 12 rows of valid.jsonl",
        "95 % interval -2.25 to -1.75",
        note,
        "arc_easy acc0.250.3no evidence",
    ):
        assert said in text, said
    assert "answer tokens" not in text, "without mask_prompt those of prompts count too"
    assert "test set" not in text


def test_benchmark_of_weights_that_were_replaced_does_not_count(tmp_path: Path):
    adapter = adapter_of(tmp_path, "train-20260101-000000-aaaa")
    trained = make_job(events=course(), adapter_path=adapter)
    make_job("benchmark-20260101-010000-bbbb", result=BENCHMARK, adapter_path=adapter)
    assert collect(trained).benchmarks
    os.utime(Path(adapter) / "adapters.safetensors")
    assert not collect(trained).benchmarks


def test_unwritable_folder_and_missing_spec_are_said():
    folder = make_job(events=course())
    (folder.path / "spec.json").unlink()
    with pytest.raises(JobError, match="no readable spec"):
        write_report(folder)
    other = make_job("train-20260101-000000-bbbb", course())
    other.report.mkdir()  # nothing can be put in its place
    with pytest.raises(PathError, match="free disk space"):
        write_report(other)
