"""The memory check of ``start_lora_training``: refuse what can't fit, warn when it is tight, remember what was expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mcp_server.jobs.hosts import Ready
from mcp_server.jobs.store import JobFolder
from mcp_server.jobs.world import World
from mcp_server.planning import budget as budgets
from mcp_server.planning import calibration, memory, rows
from mcp_server.planning.check import DoesNotFitError, Expectation, advice, gb, judge, model_shape
from mcp_server.planning.ladder import smallest_harm
from mcp_server.planning.rows import RowLengths
from mcp_server.training.options import TrainingOptions


class StartCheck:
    """The memory check of one start: the warnings, and what to remember of it for the next estimate."""

    def __init__(
        self, expected: Expectation | None, warnings: list[str], *, exact: bool = False, processes: int = 1
    ) -> None:
        self._expected = expected
        self._exact = exact
        self._processes = processes
        self.warnings = warnings

    @property
    def needs_bytes(self) -> int | None:
        """What must be free when the job's turn comes."""
        return self._expected.peak * self._processes if self._expected is not None else None

    def check_others(self, ready: Ready | None) -> None:
        """Raises DoesNotFitError naming the other machines whose free memory is too small for a rank."""
        if self._expected is None or ready is None:
            return
        need = self._expected.peak
        short = [
            f"{name} has {gb(free)} GB free"
            for name, free in list(ready.available.items())[1:]
            if free is not None and free < need
        ]
        if short:
            raise DoesNotFitError(
                f"each rank needs about {gb(need)} GB at the peak, and {', '.join(short)}; close programs there, use a "
                "smaller batch_size, grad_checkpoint or a 4-bit model, or leave those hosts out"
            )

    def remember(self, folder: JobFolder) -> None:
        """Write the expectation beside the job, so that its measured peak teaches the next estimate."""
        if self._expected is not None:
            calibration.expect(
                folder,
                self._expected.machine_key(),
                self._expected.parts,
                grad_checkpoint=self._expected.options.grad_checkpoint,
                exact=self._exact,
            )


def before_start(
    options: TrainingOptions, backend: str, world: World | None = None, *, resumed: bool = False
) -> StartCheck:
    """Refuse a training that can't fit, naming the plan that would; warn when it is tight.

    Of several ranks each holds the whole model and the activations of its own rows, and those of one machine share it.
    ``options.model`` is a folder here, or a Hub id not yet downloaded, whose memory nobody knows. Raises DoesNotFitError.
    """
    found = model_shape(options.model)
    if found is None:
        return StartCheck(None, [])
    lengths = _lengths(options)
    tokens = memory.padded(lengths.longest, options.max_seq_length)
    expected = Expectation(found, options, tokens, budgets.read(budgets.backend_name(backend)).of_rank(world))
    check = judge(expected)
    if check.verdict == "not now":
        raise DoesNotFitError(check.text)
    if check.verdict == "does not fit":
        smaller = smallest_harm(expected, lengths)
        if smaller is None:
            raise DoesNotFitError(f"{check.text}; {advice(found, expected.budget)}")
        changed = ", ".join(f"{name}={_shown(value)}" for name, value in smaller.changes.items() if name != "iters")
        longer = smaller.changes.get("iters")
        raise DoesNotFitError(
            f"{check.text}; with {changed} it needs about {gb(smaller.expected.peak)} GB: start it so"
            + (f" (and iters={longer}, unless epochs or phases say how long)" if longer else "")
            + ", or ask plan_training for all arguments"
        )
    # A run that goes through every row has met the longest one; a shorter run, or the rest of one, may not have.
    seen_all = options.iters * options.batch_size >= lengths.rows and lengths.counted_by != "characters" and not resumed
    return StartCheck(
        expected,
        [check.text] if check.verdict == "tight" else [],
        exact=seen_all,
        processes=budgets.processes_sharing(world),
    )


def _shown(value: Any) -> str:
    """As one would write it in a call."""
    return value.model_dump_json(exclude_none=True) if isinstance(value, BaseModel) else json.dumps(value)


def _lengths(options: TrainingOptions) -> RowLengths:
    """The data's row lengths; of data on the Hub, which the job loads, only that no row is longer than the window."""
    data = Path(options.data)
    if (data / "train.jsonl").is_file():
        return rows.read(data, Path(options.model), options.features)
    window = options.max_seq_length
    return RowLengths(
        rows=0,
        valid_rows=0,
        test_rows=0,
        format="unknown",
        longest=window,
        p50=window,
        p90=window,
        p99=window,
        mean=window,
        counted_by="characters",
    )
