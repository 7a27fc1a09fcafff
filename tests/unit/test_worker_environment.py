"""Which variables a worker is started with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mcp_server.training import measures
from mcp_server.training.options import TrainingOptions
from tests.tiny import make_tiny_model

LIMITS = {"MLX_MAX_MB_PER_BUFFER": "100"}


def options(**changes: Any) -> TrainingOptions:
    return TrainingOptions.model_validate({"model": "m", "data": "d", "grad_checkpoint": True} | changes)


def test_command_buffers_are_limited_on_cuda_alone():
    found = {name: measures.buffer_limits(options(), name, {}) for name in ("linux-cuda", "linux-cpu", "apple-silicon")}
    assert found == {"linux-cuda": LIMITS, "linux-cpu": {}, "apple-silicon": {}}


@pytest.mark.parametrize("changes", [{"stock": True}, {"command_buffer_limits": False}, {"grad_checkpoint": False}])
def test_limits_are_switched_off_by_name_and_by_stock(changes: dict[str, Any]):
    assert measures.buffer_limits(options(**changes), "linux-cuda", {}) == {}


@pytest.mark.parametrize(
    ("changes", "backend", "quantized", "off"),
    [
        ({"grad_checkpoint": False}, "linux-cuda", False, True),
        ({}, "linux-cuda", False, False),
        ({"cuda_graphs": False}, "linux-cuda", False, True),
        ({"grad_checkpoint": False, "stock": True}, "linux-cuda", False, False),
        ({"grad_checkpoint": False, "cuda_graphs": True}, "linux-cuda", False, False),
        ({"grad_checkpoint": False}, "linux-cuda", True, False),
        ({"cuda_graphs": False}, "linux-cuda", True, True),
        ({"grad_checkpoint": False}, "apple-silicon", False, False),
        ({"cuda_graphs": False}, "linux-cpu", False, False),
    ],
)
def test_cuda_graphs_are_off_where_they_were_measured_not_to_pay(
    changes: dict[str, Any], backend: str, quantized: bool, off: bool
):
    found = measures.process_variables(options(**changes), backend, {}, quantized=quantized)
    assert ("MLX_USE_CUDA_GRAPHS" in found) is off
    assert found.get("MLX_USE_CUDA_GRAPHS", "0") == "0"


@pytest.mark.parametrize(
    ("changes", "environment", "said"),
    [
        ({"grad_checkpoint": False}, {"MLX_USE_CUDA_GRAPHS": "0"}, "off: they are built anew"),
        ({}, {"MLX_USE_CUDA_GRAPHS": "0"}, "off: by the user"),
        ({"grad_checkpoint": False}, {"MLX_USE_CUDA_GRAPHS": "1"}, "on: by the user"),
        ({"stock": True}, {}, "on: stock"),
        ({}, {}, "on: less memory"),
    ],
)
def test_what_a_worker_says_of_its_graphs(changes: dict[str, Any], environment: dict[str, str], said: str):
    assert measures.describe_graphs(options(**changes), environment, quantized=False).startswith(said)
    theirs = {"MLX_USE_CUDA_GRAPHS": "1"}
    assert measures.no_graphs(options(grad_checkpoint=False), "linux-cuda", theirs, quantized=False) == {}


def test_a_worker_says_that_quantized_weights_keep_their_graphs():
    said = measures.describe_graphs(options(grad_checkpoint=False), {}, quantized=True)
    assert said == "on: not measured to pay with quantized weights"


def test_graphs_are_kept_for_a_model_that_the_job_has_yet_to_download(monkeypatch: pytest.MonkeyPatch):
    """It may be quantized. The worker, which has it by then, must not take our own variable for the user's."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    asked = options(grad_checkpoint=False, model="nobody/no-such-model-4bit")
    quantized = measures.quantized_base(asked.model)
    started = measures.process_variables(asked, "linux-cuda", {}, quantized=quantized)
    assert started == {}
    assert measures.describe_graphs(asked, started, quantized=True) == "on: not measured to pay with quantized weights"
    assert measures.describe_graphs(asked, started, quantized=False).startswith("on: at the start it was not known")


def test_what_an_out_of_memory_switched_on_is_not_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps({"system": "Linux", "container": False, "cuda": True}))
    monkeypatch.setenv("MLX_TRAINING_FACTS", str(facts))
    asked = options(grad_checkpoint=False)
    started = measures.worker_environment("train", asked.model_dump(), {}, saving=True)
    lowered = measures.as_started(asked, saving=True)
    assert started == LIMITS
    assert measures.describe_buffer_limits(lowered, "linux-cuda", started) == "on: MLX_MAX_MB_PER_BUFFER=100"
    assert measures.describe_graphs(lowered, started, quantized=False) == "on: less memory"


@pytest.mark.parametrize("bits", [None, 4])
def test_whether_a_base_is_quantized_is_read_from_its_config(bits: int | None, tmp_path: Path):
    assert measures.quantized_base(str(make_tiny_model(tmp_path / "m", quantize_bits=bits))) is (bits is not None)
    (tmp_path / "m" / "config.json").write_text("{")
    assert not measures.quantized_base(str(tmp_path / "m"))
    assert not measures.quantized_base("nobody/no-such-model")


@pytest.mark.parametrize("name", ["MLX_MAX_MB_PER_BUFFER", "MLX_MAX_OPS_PER_BUFFER"])
def test_users_own_variable_wins_and_is_said_to_be_theirs(name: str):
    theirs = {name: "7"}
    assert measures.buffer_limits(options(command_buffer_limits=True), "linux-cuda", theirs) == {}
    said = measures.describe_buffer_limits(options(), "linux-cuda", theirs)
    assert said == f"on: {name}=7, the user's own"


@pytest.mark.parametrize(("kind", "wrapped"), [("train", False), ("probe", True)])
def test_training_and_its_probe_get_the_same_environment(
    kind: str, wrapped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    facts = tmp_path / "facts.json"
    facts.write_text(json.dumps({"system": "Linux", "container": False, "cuda": True}))
    monkeypatch.setenv("MLX_TRAINING_FACTS", str(facts))
    asked = options().model_dump(mode="json")
    assert measures.worker_environment(kind, {"training": asked} if wrapped else asked, {}) == LIMITS
    assert measures.worker_environment("convert", {"model": "m"}, {}) == {}
