"""An optimizer that clips gradients and leaves out updates that are not finite.

It is the optimizer that the trainer is given, so both happen inside the trainer's compiled step, after gradients were
accumulated and averaged over ranks: all ranks decide alike.
"""

from __future__ import annotations

from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer
from mlx.utils import tree_flatten, tree_map

from mcp_server.training.options import TrainingOptions

_SKIPPED = "skipped_updates"  # beside the optimizer's own names, so that checkpoints carry it


class GuardedOptimizer:
    """``optimizer`` behind the guard; its state keeps its names."""

    def __init__(self, optimizer: Optimizer, *, max_grad_norm: float | None, skip_nonfinite: bool) -> None:
        self._optimizer = optimizer
        self._max_grad_norm = max_grad_norm
        self._skip = skip_nonfinite
        if skip_nonfinite:
            optimizer.state[_SKIPPED] = mx.array(0, dtype=mx.uint32)

    @property
    def state(self) -> dict[str, Any]:
        """The optimizer's own, and how many updates were skipped."""
        return cast(dict[str, Any], self._optimizer.state)

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._optimizer.state = state
        if self._skip:
            state.setdefault(_SKIPPED, mx.array(0, dtype=mx.uint32))  # a checkpoint of an earlier version

    @property
    def learning_rate(self) -> mx.array:
        return self._optimizer.learning_rate

    def update(self, model: nn.Module, gradients: dict[str, Any]) -> None:
        """The optimizer's update; with a gradient that is not finite weights and state stay as they are."""
        finite = _all_finite(gradients)
        if self._max_grad_norm is not None:
            gradients = clip(gradients, self._max_grad_norm)
        if not self._skip:
            self._optimizer.update(model, gradients)
            return
        self._optimizer.init(cast(dict[str, Any], model.trainable_parameters()))  # what is there already stays
        weights = cast(dict[str, Any], model.trainable_parameters())
        before = tree_map(_same, self.state)
        self._optimizer.update(model, gradients)

        def chosen(new: mx.array, old: mx.array) -> mx.array:
            return mx.where(finite, new, old)

        model.update(tree_map(chosen, cast(dict[str, Any], model.trainable_parameters()), weights))
        _replace(self.state, tree_map(chosen, self.state, before))
        self.state[_SKIPPED] = before[_SKIPPED] + mx.logical_not(finite)


def guard(optimizer: Optimizer, options: TrainingOptions) -> Optimizer:
    """``optimizer`` with what ``options`` ask for; itself when that is nothing."""
    if options.max_grad_norm is None and not options.skips:
        return optimizer
    guarded = GuardedOptimizer(optimizer, max_grad_norm=options.max_grad_norm, skip_nonfinite=options.skips)
    return cast(Optimizer, guarded)


def skipped_updates(optimizer: Optimizer) -> int:
    """How many were skipped so far, by this run and those it resumed."""
    count = cast(dict[str, Any], optimizer.state).get(_SKIPPED)
    return 0 if count is None else cast(int, count.item())


def clip(gradients: dict[str, Any], max_norm: float) -> dict[str, Any]:
    """Scaled so that their global norm, taken in 32 bits, is at most ``max_norm``, as in Hugging Face's trainer."""
    total = mx.sqrt(sum((mx.square(array.astype(mx.float32)).sum() for array in _arrays(gradients)), mx.array(0.0)))
    scale = mx.minimum(max_norm / (total + 1e-6), 1.0)
    return cast(dict[str, Any], tree_map(lambda array: (array * scale).astype(array.dtype), gradients))


def _all_finite(tree: dict[str, Any]) -> mx.array:
    return mx.all(mx.stack([mx.all(mx.isfinite(array)) for array in _arrays(tree)]))


def _arrays(tree: dict[str, Any]) -> list[mx.array]:
    return [array for _, array in cast(list[tuple[str, mx.array]], tree_flatten(tree))]


def _same(array: mx.array) -> mx.array:
    return array


def _replace(tree: Any, values: Any) -> None:
    """Put ``values`` in the place of the leaves of ``tree``: the trainer's compiled step holds on to the tree itself."""
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, dict | list):
            _replace(tree[key], value)
        else:
            tree[key] = value
