"""The optimizer's guard: clipping as computed by hand, and updates that are not finite left out."""

# pyright: basic
from __future__ import annotations

from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten, tree_map

from mcp_server.training.options import TrainingOptions
from mcp_server.workers import train
from mcp_server.workers.guard import GuardedOptimizer, clip, guard, skipped_updates

OPTIMIZERS = ("adam", "adamw", "muon", "sgd", "adafactor")


def options(**changes: Any) -> TrainingOptions:
    return TrainingOptions.model_validate(
        {"model": "m", "data": "d", "learning_rate": 0.1, "iters": 20, "lr_schedule": "cosine"} | changes
    )


def make(name: str, **changes: Any) -> tuple[Any, Any]:
    """A small model and its guarded optimizer, of a learning rate that changes at each update."""
    from mcp_server.training.request import resolve_length

    mx.random.seed(1)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    asked = resolve_length(options(optimizer=name, **changes), None)
    return model, guard(train.make_optimizer(asked), asked)


def gradients(model: Any, seed: int, scale: float = 1.0) -> Any:
    keys = iter(mx.random.split(mx.random.key(seed), 10))
    return tree_map(lambda p: scale * mx.random.normal(p.shape, key=next(keys)), model.trainable_parameters())


def arrays(tree: Any) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in tree_flatten(tree)}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "bad", "compiled"),
    [(name, bad, False) for name in OPTIMIZERS for bad in (float("nan"), float("inf"))]
    + [("adam", float("nan"), True)],
)
def test_update_that_is_not_finite_changes_nothing_but_the_count(name: str, bad: float, compiled: bool):
    model, optimizer = make(name)
    state = [model.state, optimizer.state]

    def step(given: Any) -> None:
        optimizer.update(model, given)

    if compiled:
        mx.enable_compile()
    run = mx.compile(step, inputs=state, outputs=state) if compiled else step
    try:
        run(gradients(model, 1))
        mx.eval(state)
        weights, kept = arrays(model.parameters()), arrays(optimizer.state)
        poisoned = gradients(model, 2)
        poisoned["layers"][1]["weight"][0, 0] = bad
        run(poisoned)
        mx.eval(state)
        assert skipped_updates(optimizer) == 1
        after = arrays(optimizer.state)
        assert same(weights, arrays(model.parameters()))
        assert kept.pop("skipped_updates") == 0 and after.pop("skipped_updates") == 1
        assert same(kept, after)
        run(gradients(model, 3))
        mx.eval(state)
        assert skipped_updates(optimizer) == 1
        assert not same(weights, arrays(model.parameters()))
    finally:
        mx.disable_compile()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_finite_updates_are_the_optimizers_own_to_the_last_bit(name: str):
    guarded, optimizer = make(name)
    plain, stock = make(name, stock=True)
    assert isinstance(optimizer, GuardedOptimizer) and not isinstance(stock, GuardedOptimizer)
    for seed in range(3):
        optimizer.update(guarded, gradients(guarded, seed))
        stock.update(plain, gradients(plain, seed))
    assert same(arrays(guarded.parameters()), arrays(plain.parameters()))
    state = arrays(optimizer.state)
    state.pop("skipped_updates")
    assert same(state, arrays(stock.state))


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_max_grad_norm_equals_clipping_by_hand(scale: float):
    model, _ = make("sgd")
    given = gradients(model, 5, scale)
    flat = arrays(given)
    norm = np.sqrt(sum((value.astype(np.float64) ** 2).sum() for value in flat.values()))
    expected = {name: value * min(1.0, 1.5 / (norm + 1e-6)) for name, value in flat.items()}
    for name, value in arrays(clip(given, 1.5)).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5)


def test_clipping_reaches_the_weights():
    model, optimizer = make("sgd", max_grad_norm=1e-3, lr_schedule="constant")
    before = arrays(model.parameters())
    optimizer.update(model, gradients(model, 6, 50.0))
    moved = [value - before[name] for name, value in arrays(model.parameters()).items()]
    assert np.sqrt(sum((value**2).sum() for value in moved)) == pytest.approx(0.1 * 1e-3, rel=1e-2)


def test_clipping_of_16_bit_gradients_does_not_overflow():
    large = {"w": mx.full((64,), 6e4, dtype=mx.float16)}
    clipped = clip(large, 1.0)["w"]
    assert clipped.dtype == mx.float16
    assert mx.sqrt(mx.square(clipped.astype(mx.float32)).sum()).item() == pytest.approx(1.0, rel=1e-2)


def test_state_of_an_earlier_version_goes_on():
    model, stock = make("adam", stock=True)
    stock.update(model, gradients(model, 1))
    fresh, optimizer = make("adam")
    fresh.update(model.parameters())
    optimizer.state = tree_map(lambda array: array, stock.state)
    optimizer.update(fresh, gradients(model, 2))
    stock.update(model, gradients(model, 2))
    assert same(arrays(fresh.parameters()), arrays(model.parameters()))
    assert skipped_updates(optimizer) == 0


def test_stock_with_nothing_asked_is_the_plain_optimizer():
    assert not isinstance(make("adam", stock=True)[1], GuardedOptimizer)
    assert isinstance(make("adam", stock=True, max_grad_norm=1.0)[1], GuardedOptimizer)
    assert not isinstance(make("adam", skip_nonfinite=False)[1], GuardedOptimizer)
