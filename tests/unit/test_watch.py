"""The rules by which a run watches itself, on made-up curves."""

from __future__ import annotations

import math
import random

import pytest

from mcp_server.training.diagnose import KNOWN, diagnose, kind_of_failure
from mcp_server.workers.watch import Watch


def kinds_of(losses: list[float]) -> list[str]:
    watch = Watch()
    return [alert.kind for step, loss in enumerate(losses, start=1) for alert in watch.step(step, loss)]


def falling(steps: int, noise: float = 0.05, seed: int = 0) -> list[float]:
    dice = random.Random(seed)
    return [2.0 * math.exp(-step / 150) + 0.8 + dice.gauss(0, noise) for step in range(steps)]


@pytest.mark.parametrize("seed", range(20))
def test_healthy_curve_raises_nothing(seed: int):
    assert kinds_of(falling(300, seed=seed)) == []


def test_spike_is_raised_once():
    losses = falling(120)
    losses[100] = 9.0
    assert kinds_of(losses) == ["loss-spike"]


def test_divergence_is_raised_when_the_mean_keeps_rising():
    losses = falling(100) + [1.2 * 1.03**step for step in range(120)]
    assert "divergence" in kinds_of(losses)


def test_plateau_is_raised_after_long_without_gain():
    assert kinds_of([1.0] * 450) == ["plateau"]


def test_overfitting_is_validation_rising_while_training_falls():
    watch = Watch()
    curve = [(100, 1.5, 1.4), (200, 1.2, 1.1), (300, 1.3, 0.9), (400, 1.45, 0.7), (500, 1.6, 0.5)]
    raised = [(step, alert.kind) for step, val, train in curve for alert in watch.validation(step, val, train)]
    assert raised == [(400, "overfitting")]


def test_validation_that_falls_or_wobbles_is_not_overfitting():
    watch = Watch()
    curve = [(1, 1.5, 1.4), (2, 1.3, 1.2), (3, 1.31, 1.1), (4, 1.25, 1.0), (5, 1.26, 0.9)]
    assert [alert for step, val, train in curve for alert in watch.validation(step, val, train)] == []


def test_slow_down_is_raised_once_until_speed_is_back():
    watch = Watch()
    speeds = [50, 900, *[1000.0] * 8, 400, 390, 1000, 300]
    raised = [step for step, speed in enumerate(speeds) for _ in watch.speed(step, speed)]
    assert raised == [10, 13]


def test_memory_pressure_is_raised():
    watch = Watch()
    total = 16 * 10**9
    assert watch.memory(1, 8 * 10**9, total, 0) == []
    assert [alert.kind for alert in watch.memory(2, 10**8, total, 0)] == ["memory-pressure"]
    assert watch.memory(3, 10**8, total, 0) == []
    assert [alert.kind for alert in Watch().memory(1, 8 * 10**9, total, 3 * 10**9)] == ["memory-pressure"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("RuntimeError: [malloc] Unable to allocate 123 bytes.", "out-of-memory"),
        (
            "[metal::malloc] Attempting to allocate 9 bytes which is greater than the maximum allowed buffer size",
            "out-of-memory",
        ),
        ("Insufficient Memory (00000008:kIOGPUCommandBufferCallbackErrorOutOfMemory)", "out-of-memory"),
        (
            "[METAL] Command buffer execution failed: kIOGPUCommandBufferCallbackErrorImpactingInteractivity",
            "gpu-watchdog",
        ),
        ("Caused GPU Timeout Error (00000002:kIOGPUCommandBufferCallbackErrorTimeout)", "gpu-watchdog"),
        ("std::bad_alloc", "out-of-memory"),
        ("[malloc_or_wait] resource limit (499000) exceeded", "out-of-memory"),
        ("ValueError: shapes (3,4) and (5,6) do not match", None),
    ],
)
def test_failure_texts_are_told_apart(text: str, kind: str | None):
    assert kind_of_failure(text) == kind


def test_every_alert_of_the_run_has_cause_and_remedy():
    events = [{"type": "alert", "kind": kind, "message": f"seen {kind}"} for kind in KNOWN]
    found = diagnose(events, None, limit=100)
    assert len(found) == len(KNOWN)
    assert all(finding.cause and finding.remedy and finding.symptom.startswith("seen") for finding in found)


def test_reason_of_failure_is_diagnosed_too():
    (finding,) = diagnose([], "RuntimeError: [malloc] Unable to allocate 9 bytes")
    assert "grad_checkpoint" in finding.remedy
