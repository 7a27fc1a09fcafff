"""Bad input gets one clear error that names the value and the remedy, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.client import Client

from mcp_server.platform import interpreter
from tests.helpers import call, end_of, refusal, training

pytestmark = pytest.mark.anyio


def no_train(project: Path) -> None:
    (project / "data/train.jsonl").unlink()


def no_valid(project: Path) -> None:
    (project / "data/valid.jsonl").unlink()


def malformed(project: Path) -> None:
    path = project / "data/train.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[6] = lines[6][:-1]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def empty(project: Path) -> None:
    (project / "data/valid.jsonl").write_text("", encoding="utf-8")


def one_row(project: Path) -> None:
    path = project / "data/train.jsonl"
    path.write_text(path.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")


def adapter_exists(project: Path) -> None:
    (project / "adapters/test").mkdir(parents=True)
    (project / "adapters/test/adapters.safetensors").write_bytes(b"precious")


def adapter_is_a_file(project: Path) -> None:
    (project / "adapters").mkdir()
    (project / "adapters/test").write_bytes(b"precious")


def parent_is_a_file(project: Path) -> None:
    (project / "adapters").write_bytes(b"precious")


def not_a_model(project: Path) -> None:
    (project / "model").unlink()
    (project / "model").mkdir()
    (project / "model/notes.txt").write_text("hello", encoding="utf-8")


def model_is_a_file(project: Path) -> None:
    (project / "model").unlink()
    (project / "model").write_bytes(b"weights?")


def cut_weights(project: Path) -> None:
    source = (project / "model").resolve()
    (project / "model").unlink()
    shutil.copytree(source, project / "model")
    file = project / "model/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def nothing(project: Path) -> None:
    pass


# What is wrong, the call, and the words that the answer must hold: the value seen and what to do.
CASES: dict[str, tuple[Callable[[Path], None], dict[str, Any], tuple[str, ...]]] = {
    "model path missing": (nothing, {"model": "models/none"}, ("models/none", "give a model's folder")),
    "absolute model path missing": (nothing, {"model": "/none"}, ("/none", "config.json")),
    "model id not in the cache, offline": (nothing, {"model": "org/none"}, ("org/none", "HF_HUB_OFFLINE")),
    "not a model": (not_a_model, {}, ("config.json", "folder of a model")),
    "model is a file": (model_is_a_file, {}, ("is a file", "folder")),
    "model cut short": (cut_weights, {}, ("cut short", "download")),
    "data folder missing": (nothing, {"data": "nowhere"}, ("nowhere", "train.jsonl")),
    "data is a file": (nothing, {"data": "data/train.jsonl"}, ("is a file", "folder")),
    "no train.jsonl": (no_train, {}, ("no train.jsonl", "one JSON object a line")),
    "no valid.jsonl": (no_valid, {}, ("no valid.jsonl", "val_batches=0")),
    "malformed line": (malformed, {}, ("train.jsonl:7", "not valid JSON", "correct these lines")),
    "empty file": (empty, {}, ("valid.jsonl is empty", "put examples there")),
    "batch larger than the data, to stock": (
        one_row,
        {"batch_size": 4, "stock": True},
        ("1 row,", "batch_size=4", "at most 1", "leave stock out"),
    ),
    "too many layers": (nothing, {"num_layers": 16}, ("num_layers=16", "2 layers", "-1 for all")),
    "adapter exists": (adapter_exists, {}, ("adapters/test", "never overwritten", "choose a new name")),
    "adapter path is a file": (adapter_is_a_file, {}, ("adapters/test", "is a file")),
    "adapter below a file": (parent_is_a_file, {}, ("adapters/test", "below a file")),
    "unknown argument": (nothing, {"learning_rat": 1e-4}, ("learning_rat", "did you mean 'learning_rate'")),
    "negative number": (nothing, {"iters": -5}, ("iters=-5", "greater than or equal to 1")),
    "zero layers": (nothing, {"num_layers": 0}, ("num_layers=0", "-1 for all")),
    "negative rate": (nothing, {"learning_rate": -1e-5}, ("learning_rate=-1e-05", "greater than 0")),
    "NaN rate": (nothing, {"learning_rate": "nan"}, ("learning_rate='nan'", "finite")),
    "infinite rate": (nothing, {"learning_rate": "inf"}, ("learning_rate='inf'", "finite")),
    "word for a number": (nothing, {"iters": "many"}, ("iters='many'", "integer")),
    "unknown optimizer": (nothing, {"optimizer": "lion"}, ("optimizer='lion'", "adam")),
    "missing argument": (nothing, {"model": None}, ("'model' is required", "give it a value")),
    "PEFT's alpha": (nothing, {"lora_parameters": {"alpha": 16}}, ("lora_parameters=", "scale = alpha / rank")),
    "wrong lora key": (nothing, {"lora_parameters": {"rang": 16}}, ("lora_parameters.rang", "did you mean 'rank'")),
    "huge dropout": (nothing, {"lora_parameters": {"dropout": 2}}, ("lora_parameters.dropout=2", "less than 1")),
}


def snapshot(*folders: Path) -> dict[str, bytes | None]:
    """Every path below the folders, with its content."""
    return {
        str(path): path.read_bytes() if path.is_file() else None
        for folder in folders
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("name", CASES)
async def test_bad_training_input_is_named_and_leaves_nothing(name: str, client: Client, project: Path, home: Path):
    damage, changes, words = CASES[name]
    damage(project)
    before = snapshot(project)
    text = await refusal(client, "start_lora_training", **training(**changes))
    for word in words:
        assert word in text, text
    assert snapshot(project) == before
    assert not home.exists() or snapshot(home) == {}


@pytest.mark.parametrize("tool", ["read_training_log", "stop_job"])
@pytest.mark.parametrize("job_id", ["train-20260101-000000-abcd", "", "..", "../jobs", "/etc"])
async def test_unknown_job_is_named(tool: str, job_id: str, client: Client):
    text = await refusal(client, tool, job_id=job_id)
    assert repr(job_id) in text
    assert "list_jobs" in text


async def test_bad_benchmark_input_is_named(client: Client, project: Path):
    assert "no adapter_config.json" in await refusal(
        client, "run_benchmark", model="model", adapter_path="data", data="data"
    )
    assert "not a folder" in await refusal(client, "run_benchmark", model="model", adapter_path="none", data="data")
    (project / "data/test.jsonl").unlink()
    assert "no test.jsonl" in await refusal(client, "run_benchmark", model="model", data="data")


async def test_bad_conversion_input_is_named(client: Client, project: Path):
    assert "never overwritten" in await refusal(client, "convert_model", model="model", mlx_path="data")
    assert "q_bits=7" in await refusal(client, "convert_model", model="model", mlx_path="out", q_bits=7)
    assert "mxfp4" in await refusal(client, "convert_model", model="model", mlx_path="out", q_mode="mxfp4", q_bits=4)
    assert "quantize=false" in await refusal(client, "convert_model", model="model", mlx_path="out", dequantize=True)
    assert not (project / "out").exists()


@pytest.fixture
def locked_project(project: Path, home: Path) -> Path:
    home.mkdir()
    home.chmod(0o777)
    for folder in (project, *project.rglob("*")):
        if not folder.is_symlink():
            folder.chmod(0o555 if folder.is_dir() else 0o444)
    return project


async def test_a_start_without_mlx_lm_leaves_nothing(
    client: Client, project: Path, home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(interpreter, "find", lambda: None)
    before = snapshot(project)
    assert "no Python with mlx-lm was found" in await refusal(client, "start_lora_training", **training())
    assert snapshot(project) == before
    assert not home.exists()


@pytest.mark.usefixtures("locked_project", "not_root")
async def test_project_that_cannot_be_written_is_named(client: Client):
    text = await refusal(client, "start_lora_training", **training())
    assert "can't be written" in text
    assert "choose a folder you may write to" in text


@pytest.fixture
def locked(project: Path, request: pytest.FixtureRequest) -> Iterator[None]:
    """A folder of the project that nobody may list."""
    folder = project / request.param
    folder.mkdir(exist_ok=True)
    folder.chmod(0)
    yield
    folder.chmod(0o755)


@pytest.mark.parametrize("locked", ["data"], indirect=True)
@pytest.mark.usefixtures("locked", "not_root")
@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("inspect_dataset", {"data": "data"}),
        ("start_lora_training", training()),
        ("run_benchmark", {"model": "model", "data": "data"}),
        ("prepare_dataset", {"source": "data", "output": "out"}),
        ("list_adapters", {"folder": "data"}),
    ],
)
async def test_folder_that_may_not_be_read_is_named_as_such_and_not_taken_for_empty(
    client: Client, tool: str, arguments: dict[str, Any]
):
    text = await refusal(client, tool, **arguments)
    assert re.search(r"project/data\b.*: Permission denied; check its permissions", text), text


@pytest.mark.parametrize("locked", ["data/part"], indirect=True)
@pytest.mark.usefixtures("locked", "not_root")
async def test_part_of_a_source_that_may_not_be_read_is_not_passed_over(client: Client):
    text = await refusal(client, "prepare_dataset", source="data", output="out")
    assert "project/data/part can't be read: Permission denied; check its permissions" in text


@pytest.mark.usefixtures("locked_project", "not_root")
async def test_state_folder_that_cannot_be_written_is_named(client: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLX_TRAINING_HOME", "/nowhere")
    text = await refusal(client, "start_lora_training", **training(adapter_path="/tmp/never-made"))
    assert "can't be written" in text
    assert not Path("/tmp/never-made").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a few megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=220m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a small disk needs the right to mount: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Write until nothing more fits."""
    with (disk / "ballast").open("wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while ballast.write(b"x" * 65536) == 65536:
            pass
    assert shutil.disk_usage(disk).free == 0


async def test_nearly_full_disk_is_refused_with_the_figure(
    client: Client, project: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
):
    (small_disk / "ballast").write_bytes(b"x" * 150_000_000)
    before = snapshot(project)
    text = await refusal(client, "start_lora_training", **training(adapter_path=str(small_disk / "adapter")))
    assert "MB are free" in text
    monkeypatch.setenv("MLX_TRAINING_HOME", str(small_disk / "home"))
    assert "MB are free" in await refusal(client, "start_lora_training", **training())
    assert sorted(path.name for path in small_disk.iterdir()) == ["ballast"]
    assert snapshot(project) == before


async def test_full_disk_at_the_start_leaves_nothing(
    client: Client, project: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
):
    """The disk fills between the check and the first write: the job folder is taken away again."""
    monkeypatch.setenv("MLX_TRAINING_HOME", str(small_disk / "home"))
    monkeypatch.setattr("mcp_server.training.start._DISK_MARGIN_BYTES", 0)
    fill(small_disk)
    text = await refusal(client, "start_lora_training", **training())
    assert "free disk space" in text or "No space" in text, text
    assert not (project / "adapters/test").exists()
    left = {path.name: path.stat().st_size for path in small_disk.rglob("*") if path.is_file()}
    del left["ballast"]
    assert left == {"start.lock": 0}, "the file by which starts wait for each other is empty and stays"


@pytest.mark.integration
async def test_disk_that_fills_while_it_trains_does_not_end_the_run(
    client: Client, project: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MLX_TRAINING_HOME", str(small_disk / "home"))
    started = await call(
        client, "start_lora_training", **training(iters=150, save_every=5, steps_per_report=5, val_batches=0)
    )
    await call(client, "read_training_log", job_id=started["job_id"], wait_seconds=60, until="checkpoint")
    fill(small_disk)
    checkpoints = small_disk / "home/jobs" / started["job_id"] / "checkpoints"
    kept = sorted(path.name for path in checkpoints.glob("[0-9]*"))
    assert kept
    # Steps go on while nothing can be written (the job's log shows it on its own output); then there is room again.
    await anyio.sleep(2)
    (small_disk / "ballast").unlink()
    news = await end_of(client, started["job_id"])
    assert news["status"] == "completed", news
    assert (project / "adapters/test/adapters.safetensors").exists()
    assert not list(checkpoints.glob(".tmp-*")), "no half checkpoint"
