"""Adapters as mlx-lm writes them, made in a moment: random, and as strong as wanted."""

# pyright: basic
# (MLX and mlx-lm annotate their own calls only in part.)
from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def make_adapter(
    folder: Path,
    model: Path,
    *,
    fine_tune_type: str = "lora",
    num_layers: int = -1,
    strength: float = 0.05,
    seed: int = 0,
    value: float | None = None,
    **parameters: Any,
) -> Path:
    """Write an adapter for `model` into `folder`; gives `folder`.

    `strength` is the deviation of lora_b, or of what `full` adds to the weights; `value` fills lora_b instead (NaN).
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load

    folder.mkdir(parents=True)
    lora = {"rank": 4, "scale": 10.0, "dropout": 0.0} | parameters
    net: Any = load(str(model))[0]
    mx.random.seed(seed)
    net.freeze()
    if fine_tune_type == "full":
        net.layers[-1].unfreeze()
    else:
        layers = num_layers if num_layers > 0 else len(net.layers)
        linear_to_lora_layers(net, layers, lora, use_dora=fine_tune_type == "dora")
    weights = dict(tree_flatten(net.trainable_parameters()))
    for name, weight in weights.items():
        if fine_tune_type == "full" or name.endswith("lora_b"):
            noise = mx.full(weight.shape, value) if value is not None else strength * mx.random.normal(weight.shape)
            weights[name] = (weight + noise).astype(weight.dtype)
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)
    config = {
        "fine_tune_type": fine_tune_type,
        "num_layers": num_layers,
        "lora_parameters": None if fine_tune_type == "full" else lora,
        "model": str(model),
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder
