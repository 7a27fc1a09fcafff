"""Loading a model in a worker, with errors that say what to do."""

from __future__ import annotations

from typing import Any

import mlx.nn as nn
from mlx_lm.utils import load

from mcp_server.errors import ModelError


def load_model(model: str, adapter_path: str | None = None) -> tuple[nn.Module, Any]:
    """``mlx_lm.load``: model and tokenizer, remote code never run. Raises ModelError when it can't be loaded."""
    try:
        loaded = load(model, adapter_path=adapter_path)
    except Exception as error:
        # mlx-lm and huggingface_hub raise a dozen types here; all mean that this model can't be used.
        what = f"adapter {adapter_path} on {model}" if adapter_path else f"model {model}"
        text = " ".join(str(error).split())[:400]
        raise ModelError(
            f"{what} could not be loaded: {type(error).__name__}: {text}; check the path, id and network"
        ) from error
    return loaded[0], loaded[1]
