"""Losses and time since the last report."""

from __future__ import annotations

import time
from typing import Any

import numpy as np


class Window:
    """Summed in 32 bits, as the trainer does, so that the mean is stock's; the clock leaves validation and saving out."""

    def __init__(self) -> None:
        self._sum = np.float32(0)
        self.iterations = 0
        self._elapsed = 0.0
        self._timed_tokens = 0
        self._timed_iterations = 0
        self._since: float | None = time.perf_counter()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Window:
        """A window that goes on where another stopped; its time is not known and starts anew."""
        window = cls()
        window._sum = np.float32(value["sum"])
        window.iterations = value["iterations"]
        return window

    def as_json(self) -> dict[str, Any]:
        """What ``from_json`` reads. A 32-bit number is exact as a 64-bit one."""
        return {"sum": float(self._sum), "iterations": self.iterations}

    def add(self, loss: float, tokens: int) -> None:
        """One iteration of the trainer."""
        self._sum = np.float32(self._sum + np.float32(loss))
        self.iterations += 1
        self._timed_tokens += tokens
        self._timed_iterations += 1

    def loss(self) -> float:
        """The mean loss of the iterations, as mlx-lm takes it."""
        return float(self._sum) / self.iterations

    def pause_clock(self) -> None:
        """Something other than training begins."""
        if self._since is not None:
            self._elapsed += time.perf_counter() - self._since
            self._since = None

    def resume_clock(self) -> None:
        """Training goes on."""
        if self._since is None:
            self._since = time.perf_counter()

    def speeds(self, parts: int) -> dict[str, float | None]:
        """Steps (of ``parts`` iterations) and tokens per second of training time."""
        running = time.perf_counter() - self._since if self._since is not None else 0.0
        seconds = self._elapsed + running
        if seconds <= 0 or not self._timed_iterations:
            return {"iterations_per_second": None, "tokens_per_second": None}
        return {
            "iterations_per_second": round(self._timed_iterations / parts / seconds, 4),
            "tokens_per_second": round(self._timed_tokens / seconds, 2),
        }
