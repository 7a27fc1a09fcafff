"""The command line: the same services as the tools, for people and, with --json, for programs."""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import load_file, save_file

from mcp_server.cli import main
from mcp_server.cli.benchmark import ranking_table
from mcp_server.cli.follow import follow
from mcp_server.cli.options import add_options, read_options
from mcp_server.errors import JobError
from mcp_server.evaluation.report import BenchmarkReport
from mcp_server.jobs import store
from mcp_server.jobs.process import ProcessIdentity
from mcp_server.training import artifacts
from mcp_server.training.options import TrainingOptions
from tests.helpers import folder, status, wait_until
from tests.random_adapters import make_adapter
from tests.recorded import BENCHMARK, course, make_job
from tests.tiny import make_tiny_model

ROOT = Path(__file__).resolve().parents[2]
TRAIN = (
    "--model model --data data --adapter-path adapters/cli --iters 6 --num-layers 1 --batch-size 2 --val-batches 1"
    " --max-seq-length 64 --steps-per-report 2 --learning-rate 1e-3 --lora-parameters"
)


def cli(*words: str) -> int:
    return main(list(words))


def cli_json(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    """What a command prints with --json."""
    capsys.readouterr()
    assert cli(*words, "--json") == code
    return json.loads(capsys.readouterr().out)


@pytest.mark.integration
def test_whole_main_job_on_the_command_line(project: Path, capsys: pytest.CaptureFixture[str]):
    assert cli_json(capsys, "doctor")["verdict"] == "ready with warnings"
    converted = cli_json(
        capsys, "convert", "--model", "model", "--mlx-path", "4bit", "--dtype", "float32", "--q-bits", "4"
    )
    assert Path(converted["mlx_path"]) == project / "4bit"
    news = cli_json(capsys, "train", *TRAIN.split(), '{"rank": 4, "scale": 10.0}')
    assert news["status"] == "completed"
    assert [job["kind"] for job in cli_json(capsys, "jobs")["jobs"]] == ["train", "convert"]
    log = cli_json(capsys, "log", news["job_id"])
    assert [step for step, _ in log["train"]] == [2, 4, 6]
    report = cli_json(capsys, "benchmark", "--model", "model", "--adapter-path", "adapters/cli", "--data", "data")
    assert report["rows"] == 40
    assert report["comparison"]["verdict"] in ("better", "worse", "no evidence")


@pytest.mark.integration
def test_convert_fuse_and_generate_on_the_command_line(project: Path, capsys: pytest.CaptureFixture[str]):
    converted = cli_json(capsys, "convert", "--model", "model", "--mlx-path", "q4", "--eval-data", "data")
    assert "perplexity" in converted["summary"]
    make_adapter(project / "adapter", project / "q4")
    said = cli_json(capsys, "generate", "--adapter-path", "adapter", "--prompt", "How much is the lamp?", "--compare")
    assert said["base"]["text"]
    assert said["adapter"]["tokens"] > 0
    fused = cli_json(capsys, "fuse", "--adapter-path", "adapter", "--dequantize")
    assert Path(fused["save_path"]) == project / "models/adapter-fused"
    assert cli("fuse", "--adapter-path", "adapter", "--dequantize") == 1
    assert "never overwritten" in capsys.readouterr().err
    assert cli("generate", "--model", "models/adapter-fused", "--prompt", "How much is the lamp?") == 0
    assert capsys.readouterr().out.strip() == said["adapter"]["text"].strip()


@pytest.mark.anyio
async def test_a_job_is_followed_from_a_thread_that_runs_a_loop_already(capsys: pytest.CaptureFixture[str]):
    """So does the thread of a notebook's cells, from which the Python API follows."""
    assert follow(make_job(events=course(4)).job_id).status == "completed"
    assert "step 4 of 4" in capsys.readouterr().err
    with pytest.raises(JobError, match="there is no job 'train-none'"):
        follow("train-none")


def test_an_interrupt_ends_the_following_alone_and_says_how_to_come_back():
    job = make_job(events=course(4), status="working")
    command = [sys.executable, "-m", "mcp_server.cli", "log", job.job_id, "--follow"]
    with subprocess.Popen(["sleep", "60"]) as runner:
        job.write_state(job.state().model_copy(update={"runner": ProcessIdentity.of(runner.pid), "ended": None}))
        following = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert following.stderr is not None
        while "step 4 of 4" not in following.stderr.readline():
            assert following.poll() is None
        following.send_signal(signal.SIGINT)
        _, said = following.communicate(timeout=30)
        assert runner.poll() is None
        runner.kill()
    assert following.returncode == 130
    assert f"the job goes on; follow it with `mlx-training log {job.job_id} --follow`" in said
    assert "Traceback" not in said


def test_what_stands_in_brackets_is_text_and_no_mark(project: Path, capsys: pytest.CaptureFixture[str]):
    message = "RuntimeError: [malloc] Unable to allocate; going on with [/a] less :x:"
    alert = {"type": "alert", "kind": "out-of-memory", "message": message}
    follow(make_job(events=[*course(4), alert]).job_id)
    assert f"! {message}" in " ".join(capsys.readouterr().err.split())
    lines = [{"name": "run[a]", "loss": 1.0}, {"name": "run[/b]", "loss": 2.0}]
    Console().print(ranking_table(BenchmarkReport.model_validate(BENCHMARK | {"ranking": lines})))
    table = capsys.readouterr().out
    assert "run[a]" in table and "run[/b]" in table
    (project / "m[").mkdir()
    (project / "model").rename(project / "m[/b]")
    assert cli("plan", "--model", "m[/b]", "--data", "data") == 0
    assert "m[/b]" in "".join(capsys.readouterr().out.split())


@pytest.mark.integration
def test_training_of_which_no_loss_is_known_ends_in_words(project: Path, capsys: pytest.CaptureFixture[str]):
    """Stopped early before the first report, the steps that were made are reported; where no loss was finite there is none."""
    wanted = TRAIN.replace("--steps-per-report 2 --learning-rate 1e-3", "--learning-rate 1e-9").replace("6", "60", 1)
    early = "--steps-per-report 50 --steps-per-eval 2 --early-stopping-patience 1 --early-stopping-threshold 1"
    assert cli("train", *early.split(), *wanted.split(), '{"rank": 4}') == 0
    said = capsys.readouterr()
    assert re.search(r"\nloss \d\.\d{4}, validation loss \d", said.out), said.out
    assert "stopped early at step 3" in said.err
    (project / "model").unlink()
    file = make_tiny_model(project / "model", tie=False) / "model.safetensors"
    arrays = load_file(file)
    arrays["model.norm.weight"][0] = np.inf
    save_file(arrays, file, {"format": "pt"})
    short = TRAIN.replace("--iters 6", "--iters 3").replace("--val-batches 1", "--val-batches 0")
    assert cli("train", *short.replace("adapters/cli", "adapters/nan").split(), '{"rank": 4}') == 0
    assert capsys.readouterr().out.rstrip().endswith("adapters/nan")


@pytest.mark.integration
def test_people_see_words_and_progress(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert cli("train", *TRAIN.split(), '{"rank": 4}') == 0
    said = capsys.readouterr()
    assert "completed" in said.out
    assert f"adapter: {project / 'adapters/cli'}" in said.out
    assert "step 0: validation loss" in said.err
    monkeypatch.setenv("COLUMNS", "80")
    assert cli("jobs") == 0
    listed = capsys.readouterr().out
    assert "completed" in listed
    assert next(iter(store.all_folders())).job_id in listed, "whole, to be copied"
    assert "adapters/cli" in listed
    assert cli("doctor") == 0
    assert "mlx-lm" in capsys.readouterr().out


@pytest.mark.integration
def test_detached_job_is_followed_and_stopped(project: Path, capsys: pytest.CaptureFixture[str]):
    long = TRAIN.replace("--iters 6", "--iters 4000")
    started = cli_json(capsys, "train", *long.split(), '{"rank": 4}', "--detach")
    job_id = started["job_id"]
    wait_until(lambda: folder(job_id).metrics.exists() and "step" in folder(job_id).metrics.read_text(), "steps")
    assert cli("stop", job_id) == 0
    assert "cancelled" in capsys.readouterr().out
    assert status(job_id) == "cancelled"
    assert cli("log", job_id, "--follow") == 1, "a job that did not complete"


@pytest.mark.integration
def test_benchmark_script_of_the_seed_takes_the_data_from_the_adapter(project: Path):
    assert cli("train", *TRAIN.split(), '{"rank": 4}') == 0
    script = Path(__file__).parents[2] / "scripts/benchmark.py"
    command = [sys.executable, str(script), "--model", "model", "--adapter", "adapters/cli", "--compare", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=project, env=dict(os.environ), check=True)
    assert json.loads(done.stdout)["comparison"]["win_rate"] >= 0
    done = subprocess.run(command[:-2], capture_output=True, text=True, cwd=project, env=dict(os.environ), check=True)
    assert "base alone" in done.stdout


@pytest.mark.parametrize(
    "schedule",
    ["cosine", "4:1e-3,2:1e-4", {"name": "cosine_decay", "arguments": [1e-3, 6]}],
    ids=["name", "phases", "form"],
)
def test_printed_command_says_the_same_run_again(schedule: str | dict[str, Any]):
    options = TrainingOptions.model_validate(
        {"model": "a model", "data": "data", "iters": 6, "lr_schedule": schedule, "auto_recover": False}
        | {"lora_parameters": {"rank": 4, "keys": ["self_attn.q_proj"]}, "optimizer_config": {"adam": {"eps": 1e-6}}}
    )
    words = shlex.split(artifacts.command(options))
    parser = argparse.ArgumentParser()
    add_options(parser, TrainingOptions)
    assert words[:2] == ["mlx-training", "train"]
    assert read_options(parser.parse_args(words[2:]), TrainingOptions) == options


def test_errors_are_one_line_with_the_remedy(project: Path, capsys: pytest.CaptureFixture[str]):
    assert cli("train", "--model", "nothing-here", "--data", "data") == 1
    assert "error: model 'nothing-here' does not exist" in capsys.readouterr().err
    assert cli("train", "--model", "model", "--data", "data", "--iters", "-3") == 1
    assert "iters='-3'" in capsys.readouterr().err
    assert cli("train", "--model", "model", "--data", "data", "--lora-parameters", "rank=8") == 1
    assert "is not JSON" in capsys.readouterr().err
    assert cli("log", "no-such-job") == 1
    assert "no-such-job" in capsys.readouterr().err
    known = make_job().job_id
    assert cli("log", "a" * 300) == 1
    assert "there is no job 'aaa" in capsys.readouterr().err
    assert cli("log", known, "--since", "-1") == 1
    assert "error: since=-1: should be greater" in capsys.readouterr().err
    assert cli("stop", "no-such-job") == 1
    with pytest.raises(SystemExit):
        cli("dance")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("the row of Jane Doe"), "KeyError, which nobody foresaw: a fault of mlx-training; report it"),
        (PermissionError(13, "Permission denied", "/data"), "/data: Permission denied; check its permissions"),
    ],
)
def test_errors_that_no_service_foresaw_are_one_line_too(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def broken() -> None:
        raise error

    monkeypatch.setattr("mcp_server.cli.platform.check_platform", broken)
    assert cli("doctor") == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"error: {said}") and shown.count("\n") == 1
    assert "Jane" not in shown


@pytest.mark.parametrize("words", [["explain", "rm -rf adapters"], ["log"]])
def test_a_command_installed_without_the_plugin_says_that_it_has_no_gate(words: list[str], tmp_path: Path):
    site = tmp_path / "site-packages"
    shutil.copytree(
        ROOT / "mcp_server", site / "mcp_server", ignore=shutil.ignore_patterns("*.safetensors", "__pycache__")
    )
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from mcp_server.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(site), "guard", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: there is no gate in {site / 'hooks'}") and done.stderr.count("\n") == 1
    assert "uv tool install --editable" in done.stderr


def test_the_demos_files_alone_go_into_a_new_folder(project: Path, capsys: pytest.CaptureFixture[str]):
    written = cli_json(capsys, "demo", "--only-files", "--output", "shop")
    assert Path(written["model"], "model.safetensors").stat().st_size > 1_000_000
    assert len(Path(written["data"], "train.jsonl").read_text(encoding="utf-8").splitlines()) == 200
    assert cli("demo", "--only-files", "--output", "shop") == 1
    assert "already there" in capsys.readouterr().err
    (project / "file").touch()
    assert cli("demo", "--only-files", "--output", "file/shop") == 1
    assert "can't be written" in capsys.readouterr().err


def test_unsuitable_machine_makes_doctor_fail(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLX_TRAINING_PLATFORMS", "")
    assert cli_json(capsys, "doctor", code=1)["verdict"] == "not ready"
