"""Cross-entropy in chunks of tokens: the logits of a whole batch (tokens x vocabulary) never exist.

Stock's loss keeps about five arrays of that size for the backward pass. In LoRA, DoRA and mlx-lm's ``full`` the output head
is frozen, so all that the backward pass needs is the gradient with respect to the hidden states, (tokens, hidden), and that
can be had while the logits of a chunk are there. Chunks are chained (``mx.depends``), or MLX would compute all at once.

The head is the model's own code, whatever it is (tied, quantized, scaled, soft-capped): the model is called with its
backbone, the module that holds the layers, replaced by one that gives the hidden states at hand.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mcp_server.workers.losses import target_mask


class UnservedHeadError(Exception):
    """The model's head is of a kind that the fused loss can't take apart; the text says why."""


class Head:
    """A model's output head, apart from its backbone."""

    def __init__(self, model: nn.Module) -> None:
        """Raises UnservedHeadError when the layers are not in a module of their own, or more than they is trained."""
        path = _path_of_layers(model)
        if path.count(".") < 1:
            raise UnservedHeadError("its layers and its head are one module")
        trained = cast(list[tuple[str, Any]], tree_flatten(model.trainable_parameters()))
        outside = next((name for name, _ in trained if not name.startswith(f"{path}.")), None)
        if outside is not None:
            raise UnservedHeadError(f"{outside} is trained, which is outside the layers")
        self._model = model
        *parents, self._name, _ = path.split(".")
        self._parent: Any = model
        for name in parents:
            self._parent = self._parent[name]

    def hidden(self, tokens: mx.array) -> mx.array:
        """What the backbone makes of ``tokens`` (B, L): (B, L, hidden). Raises UnservedHeadError where it is no such array."""
        with self.giving(None) as backbone:
            logits = cast(mx.array, self._model(tokens))  # never computed: nothing uses it
        found = backbone.output
        if not isinstance(found, mx.array) or found.shape[:2] != tokens.shape or found.ndim != 3:
            raise UnservedHeadError("its backbone does not give one array of hidden states")
        if found.shape[2] >= logits.shape[2]:
            raise UnservedHeadError("its backbone gives the logits themselves")
        return found

    def logits(self, hidden: mx.array) -> mx.array:
        """(1, T, hidden) → (1, T, vocabulary)."""
        with self.giving(hidden):
            return cast(mx.array, self._model(mx.zeros(hidden.shape[:2], dtype=mx.int32)))

    @contextmanager
    def giving(self, hidden: mx.array | None) -> Generator[_Backbone]:
        """While this holds, the model's backbone gives ``hidden``; with None what it really gives, which is remembered."""
        real = self._parent[self._name]
        self._parent[self._name] = backbone = _Backbone(real, hidden)
        try:
            yield backbone
        finally:
            self._parent[self._name] = real


class _Backbone:
    """Stands in for the real one: gives ``output``, or what the real one gives, and remembers it."""

    def __init__(self, real: Any, output: mx.array | None) -> None:
        self._real = real
        self.output = output

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if self.output is None:
            self.output = self._real(*arguments, **named)
        return self.output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)  # a tied head asks it for the embeddings


def _path_of_layers(model: nn.Module) -> str:
    """The name of the list of layers, such as "model.layers"."""
    layers = [layer for layer in cast(list[Any], model.layers) if layer is not None]
    for name, module in model.named_modules():
        if layers and module is layers[0]:
            return name.rpartition(".")[0]
    raise UnservedHeadError("its layers can't be found")


class FusedLoss:
    """``masked_loss`` without all the logits. On spans and masks of every kind; with no trained target it is 0."""

    def __init__(self, model: nn.Module, chunk: int) -> None:
        """``chunk``: tokens whose logits are held at a time. Raises UnservedHeadError."""
        self.head = Head(model)
        self.chunk = chunk
        self._loss = mx.custom_function(self._with_gradient)
        self._loss.vjp(_scaled)

    def __call__(self, model: nn.Module, tokens: mx.array, where: mx.array) -> tuple[mx.array, mx.array]:
        """Mean cross-entropy (nats, float32) over the trained targets, and their number."""
        mask = target_mask(tokens, where)
        count = mask.sum()
        hidden = self.head.hidden(tokens[:, :-1])
        hidden = hidden.reshape(1, -1, hidden.shape[-1])
        targets, mask = tokens[:, 1:].reshape(1, -1), mask.reshape(1, -1)
        if model.training:
            value, _ = cast(tuple[mx.array, mx.array], self._loss(hidden, targets, mask, count))
            return value, count
        return self._forward(hidden, targets, mask) / mx.maximum(count, 1), count

    def _with_gradient(
        self, hidden: mx.array, targets: mx.array, mask: mx.array, count: mx.array
    ) -> tuple[mx.array, mx.array]:
        """The mean loss, and its gradient with respect to ``hidden``, (1, T, hidden)."""
        share = 1.0 / mx.maximum(count, 1).astype(mx.float32)
        total = mx.array(0.0)
        gradients: list[mx.array] = []
        for part in self._parts(hidden):
            states, aim, trained = hidden[:, part], targets[:, part], mask[:, part]
            if gradients:
                states = mx.depends(states, [total, gradients[-1]])

            def losses(states: mx.array, aim: mx.array = aim) -> mx.array:
                # Cast as stock does, so that its backward pass rounds the shares of 16-bit losses alike.
                return nn.losses.cross_entropy(self.head.logits(states), aim).astype(mx.float32)

            (loss,), (gradient,) = mx.vjp(losses, [states], [share * trained])
            total = total + (loss * trained).sum()
            gradients.append(gradient)
        return total * share, mx.concatenate(gradients, axis=1)

    def _forward(self, hidden: mx.array, targets: mx.array, mask: mx.array) -> mx.array:
        """The summed loss."""
        total = mx.array(0.0)
        for part in self._parts(hidden):
            states = mx.depends(hidden[:, part], [total])
            loss = nn.losses.cross_entropy(self.head.logits(states), targets[:, part]) * mask[:, part]
            total = total + loss.astype(mx.float32).sum()
        return total

    def _parts(self, hidden: mx.array) -> Iterator[slice]:
        for start in range(0, hidden.shape[1], self.chunk):
            yield slice(start, start + self.chunk)


def _scaled(inputs: Any, cotangents: Any, outputs: Any) -> tuple[mx.array, ...]:
    """The backward pass: the gradient is there already. Targets and mask have none."""
    hidden, targets, mask, count = inputs
    gradient = (outputs[1] * cotangents[0]).astype(hidden.dtype)
    return gradient, mx.zeros_like(targets), mx.zeros_like(mask), mx.zeros_like(count)
