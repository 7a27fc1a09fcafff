"""The run watches itself: what goes wrong is said as a typed alert, once, with the numbers that show it.

Plain Python on plain numbers, so that every rule is tested on made-up curves. ``training.diagnose`` says what to do.
"""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

Level = Literal["warning", "error"]


@dataclass(frozen=True)
class Alert:
    """One finding. ``kind`` is the key of its diagnosis."""

    kind: str
    message: str
    level: Level = "warning"


@dataclass
class Watch:
    """Rules over the losses, speeds and memory of one run. Each kind of alert is raised once until it has been calm again."""

    _recent: deque[float] = field(default_factory=lambda: deque(maxlen=50))
    _smooth: float | None = None
    _smooth_best: float | None = None
    _raised_for: int = 0
    _val: list[tuple[int, float, float | None]] = field(default_factory=list)
    _first_speeds: list[float] = field(default_factory=list)
    _active: set[str] = field(default_factory=set)
    _best_seen: tuple[float, int] | None = None

    SPIKE_DEVIATIONS = 6.0
    SMOOTHING = 0.05  # weight of the newest step in the running mean
    DIVERGENCE_FACTOR = 1.5
    DIVERGENCE_STEPS = 20
    PLATEAU_STEPS = 400
    SLOW_FACTOR = 0.5
    LOW_MEMORY_SHARE = 0.05

    def step(self, step: int, loss: float) -> list[Alert]:
        """After each step, with its loss (finite)."""
        alerts: list[Alert] = []
        if len(self._recent) == self._recent.maxlen:
            mean, deviation = statistics.fmean(self._recent), statistics.pstdev(self._recent)
            spike = loss > mean + self.SPIKE_DEVIATIONS * max(deviation, 0.02 * mean) and loss > 1.5 * mean
            alerts += self._once(
                "loss-spike",
                spike,
                f"loss {loss:.4g} at step {step}, {loss / max(mean, 1e-9):.1f} times the mean of the last 50",
            )
        self._recent.append(loss)
        self._smooth = loss if self._smooth is None else self._smooth + self.SMOOTHING * (loss - self._smooth)
        if self._smooth_best is None or self._smooth < self._smooth_best:
            self._smooth_best = self._smooth
        worse = step > self.DIVERGENCE_STEPS and self._smooth > self.DIVERGENCE_FACTOR * self._smooth_best + 0.05
        self._raised_for = self._raised_for + 1 if worse else 0
        alerts += self._once(
            "divergence",
            self._raised_for >= self.DIVERGENCE_STEPS,
            f"the loss rises: running mean {self._smooth:.4g} at step {step}, lowest was {self._smooth_best:.4g}",
        )
        if self._best_seen is None or self._smooth < 0.99 * self._best_seen[0]:
            self._best_seen = (self._smooth, step)
        flat = step - self._best_seen[1]
        alerts += self._once(
            "plateau",
            flat >= self.PLATEAU_STEPS,
            f"the training loss has not fallen by 1 % for {flat} steps (running mean {self._smooth:.4g})",
        )
        return alerts

    def validation(self, step: int, loss: float, train_loss: float | None) -> list[Alert]:
        """After each validation, with the training loss reported last."""
        self._val.append((step, loss, train_loss))
        if len(self._val) < 3:
            return []
        (_, a, train_a), (_, b, _), (_, c, train_c) = self._val[-3:]
        best = min(loss for _, loss, _ in self._val)
        falling = train_a is None or train_c is None or train_c <= train_a
        overfits = c > b > a and c > 1.01 * best and falling
        best_step = next(step for step, loss, _ in self._val if loss == best)
        return self._once(
            "overfitting",
            overfits,
            f"validation loss rises ({a:.4g}, {b:.4g}, {c:.4g} at step {step}) while the training loss falls; "
            f"the best was {best:.4g} at step {best_step}",
        )

    def speed(self, step: int, tokens_per_second: float) -> list[Alert]:
        """After each report. The first two hold compilation and warming up and do not count."""
        self._first_speeds.append(tokens_per_second)
        if len(self._first_speeds) < 6:
            return []
        usual = statistics.median(self._first_speeds[2:12])
        return self._once(
            "slow-down",
            tokens_per_second < self.SLOW_FACTOR * usual,
            f"{tokens_per_second:.0f} tokens/s at step {step}, usual were {usual:.0f}",
        )

    def memory(self, step: int, available: int, total: int, swapped: int) -> list[Alert]:
        """After each report: the machine's available and total memory and what this run has caused to swap, bytes."""
        pressed = available < self.LOW_MEMORY_SHARE * total or swapped > 0.1 * total
        return self._once(
            "memory-pressure",
            pressed,
            f"{available / 1e9:.1f} of {total / 1e9:.1f} GB are available at step {step}, "
            f"{swapped / 1e9:.1f} GB swapped since the start",
        )

    def _once(self, kind: str, holds: bool, message: str, level: Level = "warning") -> list[Alert]:
        """The alert when its condition begins to hold."""
        if not holds:
            self._active.discard(kind)
            return []
        if kind in self._active:
            return []
        self._active.add(kind)
        return [Alert(kind, message, level)]
