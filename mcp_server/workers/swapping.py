"""One loaded base, many adapters: each is put on and taken off again, and what is left is the base to the last bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.utils import load_adapters

from mcp_server.errors import ModelError
from mcp_server.evaluation.adapters import CONFIG, WEIGHTS


class Swapper:
    """The model with one adapter at a time.

    LoRA and DoRA layers stand in the place of the layers they wrap; full fine-tuning writes over weights. So both the
    base's modules and its arrays are remembered and put back (arrays are never changed in place, so holding them costs
    memory only for weights that an adapter replaces).
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._modules = _modules(model)
        self._weights = _weights(model)
        self._on: str | None = None
        model.eval()

    def use(self, adapter: str | None) -> nn.Module:
        """The model with ``adapter``, a folder, or the base alone. Raises ModelError when it does not fit or is damaged;
        then the base is on."""
        if adapter == self._on:
            return self.model
        self._restore()
        if adapter is not None:
            try:
                self._put_on(adapter)
            except BaseException:
                self._restore()
                raise
        self.model.eval()  # new LoRA layers begin in training mode, with dropout
        mx.eval(self.model.parameters())
        self._on = adapter
        return self.model

    def _put_on(self, adapter: str) -> None:
        _check_finite(Path(adapter) / WEIGHTS)
        layers = len(cast(list[nn.Module], self.model.layers))
        wanted = json.loads((Path(adapter) / CONFIG).read_bytes()).get("num_layers")
        if isinstance(wanted, int) and wanted > layers:
            raise ModelError(
                f"adapter {adapter} was trained on {wanted} layers and this model has {layers}; "
                "use the model it was trained on"
            )
        try:
            load_adapters(self.model, adapter)
        except Exception as error:
            # mlx-lm raises KeyError, ValueError, TypeError and more on what does not fit.
            text = " ".join(str(error).split())[:300]
            raise ModelError(
                f"adapter {adapter} does not fit this model: {text}; use the model it was trained on"
            ) from error

    def _restore(self) -> None:
        self._on = None
        now = _modules(self.model)
        changed = [name for name, module in self._modules.items() if now.get(name) is not module]
        # What lies below a module that is put back comes with it.
        tops = [name for name in changed if not any(name.startswith(f"{other}.") for other in changed)]
        if tops:
            self.model.update_modules(
                cast(dict[str, Any], tree_unflatten([(name, self._modules[name]) for name in tops]))
            )
        weights = _weights(self.model)
        replaced = [(name, weight) for name, weight in self._weights.items() if weights[name] is not weight]
        if replaced:
            self.model.load_weights(replaced, strict=False)


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    return dict(cast(list[tuple[str, nn.Module]], model.named_modules()))


def _weights(model: nn.Module) -> dict[str, mx.array]:
    return dict(cast(list[tuple[str, mx.array]], tree_flatten(model.parameters())))


def _check_finite(file: Path) -> None:
    try:
        weights = cast(dict[str, mx.array], mx.load(str(file)))
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"{file} can't be read: {error}; restore it or train again") from error
    bad = [name for name, weight in weights.items() if not mx.all(mx.isfinite(weight)).item()]
    if bad:
        raise ModelError(
            f"{file}: {len(bad)} of {len(weights)} weights hold NaN or infinity ({bad[0]}); "
            "choose an earlier checkpoint or train again with a lower learning_rate"
        )
