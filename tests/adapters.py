"""Adapters of the demo's base for tests, made by mlx-lm itself in this process, in seconds.

Import this only where MLX may be loaded.
"""

# pyright: basic
# (MLX and mlx-lm annotate their own calls only in part.)
from __future__ import annotations

import json
import shutil
import types
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.tuner import trainer
from mlx_lm.tuner.datasets import CacheDataset, create_dataset
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load

from mcp_server.demo import BASE, task


def train_adapter(
    folder: Path,
    *,
    model: Path = BASE,
    kind: str = "lora",
    iters: int = 30,
    num_layers: int = 2,
    seed: int = 0,
    **lora: Any,
) -> Path:
    """Train on the demo's task with mlx-lm's own loop and write what it would; gives ``folder``."""
    parameters = {"rank": 8, "scale": 10.0, "dropout": 0.0, **lora}
    np.random.seed(seed)
    mx.random.seed(seed)
    loaded: Any = load(str(model))
    network, tokenizer = loaded
    network.freeze()
    if kind == "full":
        for layer in network.layers[-num_layers:]:
            layer.unfreeze()
    else:
        linear_to_lora_layers(network, num_layers, parameters, use_dora=kind == "dora")
    rows: Any = task.dataset(0)["train"]
    data = CacheDataset(create_dataset(rows, tokenizer, types.SimpleNamespace(mask_prompt=True)))
    network.train()
    loss = nn.value_and_grad(network, trainer.default_loss)
    optimizer = optim.Adam(learning_rate=2e-4 if kind != "full" else 1e-4)
    batches = trainer.iterate_batches(dataset=data, batch_size=8, max_seq_length=128, loop=True)
    for _, batch in zip(range(iters), batches, strict=False):
        _, gradient = loss(network, *batch)
        optimizer.update(network, gradient)
        mx.eval(network.parameters(), optimizer.state)
    folder.mkdir(parents=True)
    mx.save_safetensors(str(folder / "adapters.safetensors"), dict(tree_flatten(network.trainable_parameters())))
    config = {
        "fine_tune_type": kind,
        "num_layers": num_layers,
        "lora_parameters": parameters if kind != "full" else None,
        "mask_prompt": True,
        "model": str(model),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def copy_adapter(source: Path, folder: Path, *, noise: float = 0.0, poison: bool = False) -> Path:
    """A copy whose weights have normal noise added, or one NaN; gives ``folder``."""
    shutil.copytree(source, folder)
    weights: Any = mx.load(str(folder / "adapters.safetensors"))
    mx.random.seed(1)
    changed = {name: weight + noise * mx.random.normal(weight.shape) for name, weight in weights.items()}
    if poison:
        first = next(iter(changed))
        changed[first] = mx.where(mx.arange(changed[first].shape[0])[:, None] == 0, mx.nan, changed[first])
    if noise or poison:
        mx.save_safetensors(str(folder / "adapters.safetensors"), changed)
    return folder
