"""Weights to begin with (``resume_adapter_file``): those that do not fit are refused, never left out in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from safetensors.numpy import save_file

from mcp_server.errors import PathError
from mcp_server.jobs import store
from mcp_server.training.request import TrainingRequest
from mcp_server.training.start import start_training
from mcp_server.workers.loading import begin_with
from tests.helpers import training


def weights(folder: Path, **shapes: tuple[int, ...]) -> str:
    file = folder / "adapters.safetensors"
    save_file({name.replace("__", "."): np.ones(shape, np.float32) for name, shape in shapes.items()}, file)
    return str(file)


def two_layers() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4))
    model.freeze()
    model.layers[1].unfreeze()
    return model


@pytest.mark.parametrize(
    ("name", "shape", "word"),
    [
        ("layers__0__weight", (8, 4), "none that this run trains"),
        ("model__other", (2, 2), "none that this run trains"),
        ("layers__1__weight", (4, 9), r"of shape \(4, 9\), have the shape \(4, 8\)"),
    ],
)
def test_weights_of_other_layers_names_or_shapes_end_the_job_with_what_to_do(
    name: str, shape: tuple[int, ...], word: str, tmp_path: Path
):
    with pytest.raises(PathError, match=f"{word}.*adapter_config"):
        begin_with(two_layers(), weights(tmp_path, **{name: shape}))


def test_weights_of_a_part_of_what_is_trained_are_taken(tmp_path: Path):
    model = two_layers()
    begin_with(model, weights(tmp_path, layers__1__bias=(4,)))
    found: dict[str, Any] = dict(tree_flatten(model.parameters()))
    assert found["layers.1.bias"].tolist() == [1.0] * 4


@pytest.mark.parametrize(
    ("name", "shape", "word"),
    [
        ("base_model__model__q_proj__lora_A__weight", (8, 64), "no weights that mlx-lm's LoRA has"),
        ("model__layers__1__self_attn__q_proj__lora_a", (64, 16), "rank 16 but this run's is 8"),
    ],
)
def test_file_of_another_library_or_rank_is_refused_at_the_start(
    name: str, shape: tuple[int, ...], word: str, project: Path
):
    file = weights(project, **{name: shape})
    with pytest.raises(PathError, match=word):
        start_training(TrainingRequest.model_validate(training(resume_adapter_file=file)))
    assert not list(store.all_folders())
