"""Loading a model in a worker, with errors that say what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load, load_tokenizer

from mcp_server.errors import ModelError, PathError
from mcp_server.models.folder import locate

# Said aloud: left unsaid, transformers asks on standard input whether to run the model's code, and takes a "y" for a yes.
_NO_CODE = {"trust_remote_code": False}
CODE = "it brings Python code of its own, which is never run here; use a model whose architecture mlx-lm has"


def load_model(model: str, adapter_path: str | None = None, *, lazy: bool = False) -> tuple[nn.Module, Any]:
    """``mlx_lm.load``: model and tokenizer, remote code never run. Raises ModelError when it can't be loaded."""
    loaded, tokenizer, _ = load_with_config(model, adapter_path, lazy=lazy)
    return loaded, tokenizer


def load_with_config(
    model: str, adapter_path: str | None = None, *, lazy: bool = False
) -> tuple[nn.Module, Any, dict[str, Any]]:
    """``load_model``, and the model's configuration."""
    try:
        loaded: Any = load(
            model, tokenizer_config=dict(_NO_CODE), adapter_path=adapter_path, lazy=lazy, return_config=True
        )
    except Exception as error:
        # mlx-lm and huggingface_hub raise a dozen types here; all mean that this model can't be used.
        what = f"adapter {adapter_path} on {model}" if adapter_path else f"model {model}"
        raise ModelError(f"{what} could not be loaded: {_reason(error)}") from error
    return loaded[0], loaded[1], loaded[2]


def load_tokenizer_of(model: str) -> Any:
    """The tokenizer alone, as ``mlx_lm.load`` would give it, the model's code never run. Raises ModelError."""
    try:
        config = json.loads(Path(model, "config.json").read_bytes()) if Path(model).is_dir() else {}
        return load_tokenizer(model, dict(_NO_CODE), eos_token_ids=config.get("eos_token_id"))
    except Exception as error:
        # transformers and huggingface_hub raise a dozen types; all mean that there is no usable tokenizer.
        raise ModelError(f"the tokenizer of {model} could not be loaded: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return CODE
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}; check the path, id and network"


def apply_adapter(model: nn.Module, adapter_path: str) -> None:
    """Put an adapter onto a loaded base. Raises ModelError when it is another model's, or holds NaN."""
    try:
        load_adapters(model, adapter_path)
        model.eval()
        bad = not_finite(model)
    except Exception as error:
        # KeyError, TypeError, ValueError and more, by what of its configuration does not fit.
        text = " ".join(str(error).split())[:300]
        raise ModelError(
            f"adapter {adapter_path} does not fit this model: {text}; use the model it was trained on"
        ) from error
    if bad:
        raise ModelError(
            f"adapter {adapter_path} holds NaN or infinity ({bad[0]}): its training diverged; "
            "take an earlier checkpoint or train again"
        )


def other_base(adapter_config: dict[str, Any], model: str) -> list[str]:
    """A note when the adapter says that it was trained on another base: one of the same shapes fits and means nothing."""
    trained_on = str(adapter_config.get("model") or "")
    same = not trained_on or _folder_of(trained_on) == _folder_of(model)
    return [] if same else [f"the adapter was trained on {trained_on}, not on this base"]


def _folder_of(model: str) -> str:
    """The model's folder where it is on this machine, links followed; else as it was given."""
    try:
        found = locate(model)
    except ModelError:
        found = None
    return str(found.resolve()) if found is not None else model


def weights_of(model: nn.Module) -> dict[str, mx.array]:
    """All parameters by their path."""
    return dict(cast(list[tuple[str, mx.array]], tree_flatten(model.parameters())))


def not_finite(model: nn.Module) -> list[str]:
    """The parameters that hold NaN or infinity."""
    found: list[str] = []
    for name, value in weights_of(model).items():
        if mx.issubdtype(value.dtype, mx.floating) and not mx.isfinite(value).all().item():
            found.append(name)
    return found


def begin_with(model: nn.Module, file: str) -> None:
    """Put the weights in ``file``, of an earlier adapter, into those that are to be trained.

    Raises PathError for weights that are not among these or have another shape: mlx-lm leaves the former out in silence, and
    takes the latter as they are.
    """
    try:
        weights = cast(dict[str, mx.array], mx.load(file))
    except (RuntimeError, ValueError, OSError) as error:
        raise PathError(f"resume_adapter_file {file} can't be loaded: {error}; give an adapters.safetensors") from error
    trained = dict(cast(list[tuple[str, mx.array]], tree_flatten(model.trainable_parameters())))
    for name, weight in weights.items():
        own = trained.get(name)
        if own is None or own.shape != weight.shape:
            here = f"have the shape {own.shape}" if own is not None else "are none that this run trains"
            raise PathError(
                f"resume_adapter_file {file} does not fit: its weights {name}, of shape {weight.shape}, {here}; give the "
                "fine_tune_type, num_layers and lora_parameters that it was made with (adapter_config.json), or another file"
            )
    model.load_weights(list(weights.items()), strict=False)
