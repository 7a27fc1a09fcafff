"""Learning-rate schedules: the rate of every step equals its formula, and mistakes are named."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest

from mcp_server.errors import ArgumentError
from mcp_server.training.options import TrainingOptions
from mcp_server.training.request import resolve_length
from mcp_server.training.schedule import named, parse_phases

RATE, ITERS = 1e-3, 40


def rates(options: TrainingOptions) -> list[float]:
    """The rate of each update, from the very function the worker gives its optimizer."""
    import mlx.core as mx

    from mcp_server.workers.train import make_optimizer

    optimizer = make_optimizer(options)
    found: list[float] = []
    updates = options.iters // options.grad_accumulation_steps
    parameters = {"w": mx.zeros((2, 2))}
    for _ in range(updates):
        optimizer.apply_gradients({"w": mx.ones((2, 2))}, parameters)
        found.append(cast(float, optimizer.learning_rate.item()))
    return found


def formula(name: str, n: int, warm: int, updates: int) -> float:
    """The module's docstring, written again."""
    if warm and n <= warm:
        return RATE * n / warm
    m = n - warm - 1 if warm else n
    after = updates - warm
    if name == "constant":
        return RATE
    if name == "linear":
        return RATE * (1 - min(m, after) / after)
    if name == "cosine":
        return RATE * (1 + math.cos(math.pi * min(m, after) / after)) / 2
    if name == "exponential":
        return RATE * 0.01 ** (m / after)
    return RATE * 0.1 ** (m // round(after / 3))


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("warmup", [0, 0.2, 8])
@pytest.mark.parametrize("name", ["constant", "linear", "cosine", "exponential", "step"])
def test_named_schedule_equals_its_formula(name: str, warmup: float, accumulation: int):
    options = TrainingOptions(
        model="m",
        data="d",
        iters=ITERS,
        learning_rate=RATE,
        lr_schedule=name,
        warmup=warmup,
        grad_accumulation_steps=accumulation,
    )
    resolved = resolve_length(options, rows=100)
    updates = ITERS // accumulation
    warm = round(updates * warmup) if warmup < 1 else round(warmup / accumulation)
    expected = [formula(name, n, warm, updates) for n in range(updates)]
    assert rates(resolved) == pytest.approx(expected, rel=2e-5, abs=1e-9)


def test_warmup_of_one_is_an_iteration_and_not_the_whole_run():
    form = named("linear", rate=RATE, iters=ITERS, warmup=1, accumulation=1)
    assert form is not None and form["warmup"] == 1


def test_phases_are_counted_in_iterations_however_many_make_an_update():
    options = TrainingOptions(model="m", data="d", lr_schedule="4:2e-5,4:1e-5,4:2e-6", grad_accumulation_steps=2)
    assert rates(resolve_length(options, rows=100)) == pytest.approx([2e-5] * 2 + [1e-5] * 2 + [2e-6] * 2, rel=1e-6)


def test_phases_give_each_iteration_its_rate():
    options = TrainingOptions(model="m", data="d", lr_schedule="4:2e-5,4:1e-5,2:2e-6")
    resolved = resolve_length(options, rows=100)
    assert resolved.iters == 10
    assert rates(resolved) == pytest.approx([2e-5] * 4 + [1e-5] * 4 + [2e-6] * 2, rel=1e-6)


def test_seeds_phases_are_read():
    assert parse_phases("400:2e-5,400:1e-5,200:2e-6") == [(400, 2e-5), (400, 1e-5), (200, 2e-6)]
    assert parse_phases("cosine") is None


@pytest.mark.parametrize("text", ["400:", ":1e-5", "a:b", "0:1e-5", "10:-1", "10:nan", "10:1e-5,,5:1e-6"])
def test_bad_phases_are_named(text: str):
    with pytest.raises(ArgumentError, match="lr_schedule="):
        parse_phases(text)


def test_unknown_name_and_long_warmup_are_named():
    with pytest.raises(ArgumentError, match="polynomial"):
        named("polynomial", rate=RATE, iters=ITERS, warmup=0, accumulation=1)
    with pytest.raises(ArgumentError, match="warmup=50"):
        named("cosine", rate=RATE, iters=ITERS, warmup=50, accumulation=1)


@pytest.mark.parametrize(
    "form",
    [
        {"name": "cosine", "arguments": [1e-5, 10]},
        {"name": "cosine_decay", "arguments": ["1e-5", 10]},
        {"name": "cosine_decay", "arguments": [1e-5]},
        {"name": "cosine_decay", "arguments": [1e-5, 10], "warm_up": 5},
        {"name": "cosine_decay"},
        {"name": "cosine_decay", "arguments": [math.nan, 10]},
        {"name": "cosine_decay", "arguments": [math.inf, 10]},
        {"name": "cosine_decay", "arguments": [-1e-5, 10]},
        {"name": "cosine_decay", "arguments": [0, 10]},
        {"name": "cosine_decay", "arguments": [1e-5, 0]},
        {"name": "cosine_decay", "arguments": [1e-5, 0.5]},
        {"name": "linear_schedule", "arguments": [1e-5, 0, 0]},
        {"name": "linear_schedule", "arguments": [0, 0.0, 10]},
        {"name": "step_decay", "arguments": [1e-5, 0.1, 2.5]},
        {"name": "cosine_decay", "arguments": [1e-5, 10], "warmup": 0.1},
        {"name": "cosine_decay", "arguments": [1e-5, 10], "warmup": "100"},
        {"name": "cosine_decay", "arguments": [1e-5, 10], "warmup": -1},
        {"name": "cosine_decay", "arguments": [1e-5, 10], "warmup": 5, "warmup_init": "0"},
        {"name": "cosine_decay", "arguments": [1e-5, 10], "warmup": 5, "warmup_init": math.nan},
    ],
)
def test_mistake_in_mlx_lms_own_form_is_named(form: dict[str, Any]):
    options = TrainingOptions(model="m", data="d", lr_schedule=form)
    with pytest.raises(ArgumentError, match="lr_schedule"):
        resolve_length(options, rows=100)


@pytest.mark.parametrize(
    "form",
    [
        {"name": "cosine_decay", "arguments": [1e-5, 10, 1e-6], "warmup": 5, "warmup_init": 1e-7},
        {"name": "cosine_decay", "arguments": [1, 10.0], "warmup": None},
        {"name": "linear_schedule", "arguments": [0, 1e-5, 10]},
        {"name": "exponential_decay", "arguments": [1e-5, 0.99]},
        {"name": "step_decay", "arguments": [1e-5, 0.1, 3]},
    ],
)
def test_form_that_is_taken_is_one_that_mlx_lm_makes_a_schedule_of(form: dict[str, Any]):
    from mlx_lm.tuner.utils import build_schedule

    options = TrainingOptions(model="m", data="d", lr_schedule=form)
    assert resolve_length(options, rows=100).lr_schedule == form
    assert build_schedule(form)(5) > 0


def test_phases_that_do_not_add_up_to_iters_are_named():
    options = TrainingOptions(model="m", data="d", iters=100, lr_schedule="4:2e-5,4:1e-5")
    with pytest.raises(ArgumentError, match="covers 8 iterations but the run has 100"):
        resolve_length(options, rows=100)


def test_epochs_become_iterations():
    options = TrainingOptions(model="m", data="d", epochs=2.5, batch_size=8)
    assert resolve_length(options, rows=100).iters == 33  # 13 batches in 100 rows, the last of four
    stock = options.model_copy(update={"stock": True})
    assert resolve_length(stock, rows=100).iters == 30  # 12 batches of 8, as mlx-lm cuts them
    whole = options.model_copy(update={"epochs": 1.0})
    assert resolve_length(whole, rows=96).iters == 12
    assert resolve_length(whole, rows=97).iters == 13
    with pytest.raises(ArgumentError, match="epochs"):
        resolve_length(options, rows=None)
