"""What a machine measured corrects its next estimates, and nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcp_server.jobs import store
from mcp_server.jobs.store import JobFolder, JobSpec, JobState, Outcome
from mcp_server.planning import calibration
from mcp_server.planning.memory import MemoryParts

PARTS = MemoryParts(weights=10**9, adapter=0, optimizer=0, activations=2 * 10**9, loss=10**9)
HERE = "Apple M3 Max 64 GiB apple-silicon"


def ended(
    peak: float,
    *,
    exact: bool,
    machine: str = HERE,
    grad_checkpoint: bool = False,
    status: Any = "completed",
    **more: Any,
) -> JobFolder:
    """A job that ended having measured ``peak`` GB, where PARTS (4 GB) were expected."""
    folder = store.create(
        JobSpec(job_id=store.new_id("probe"), kind="probe", created=0, project="", python="", options={})
    )
    calibration.expect(folder, machine, PARTS, grad_checkpoint=grad_checkpoint, exact=exact)
    folder.write_outcome(Outcome(status=status, result={"peak_bytes": round(peak * 1e9)} | more))
    folder.write_state(JobState(status=status, ended=1.0))
    return folder


def factor(machine: str = HERE, *, grad_checkpoint: bool = False) -> float:
    return calibration.correction(machine, grad_checkpoint=grad_checkpoint).factor


def test_nothing_measured_changes_nothing():
    found = calibration.correction(HERE, grad_checkpoint=False)
    assert (found.factor, found.jobs) == (1.0, 0)
    assert found.apply(PARTS) == PARTS.peak


def test_a_probe_replaces_the_guess_above_the_resident_part():
    ended(2.5, exact=True)  # 1.5 GB above the weights, where 3 were expected
    found = calibration.correction(HERE, grad_checkpoint=False)
    assert found.factor == pytest.approx(0.5)
    assert found.apply(PARTS) == 2_500_000_000


def test_the_median_of_probes_counts():
    for peak in (2.5, 4.0, 4.3):
        ended(peak, exact=True)
    assert factor() == pytest.approx(1.0)


def test_a_training_can_only_raise_it():
    # It may never have met its longest rows.
    ended(2.0, exact=False)
    assert factor() == 1.0
    ended(5.5, exact=False)
    assert factor() == pytest.approx(1.5)


def test_a_training_that_stopped_early_may_not_have_met_its_longest_rows_either():
    ended(2.5, exact=True, stopped_early=True)
    assert factor() == 1.0


def test_machines_and_checkpointing_are_kept_apart():
    ended(2.5, exact=True)
    assert factor("another Mac") == 1.0
    assert factor(grad_checkpoint=True) == 1.0


@pytest.mark.parametrize(
    "odd",
    [{"status": "failed"}, {"recovered": ["batch"]}, {"peak_bytes": 0}, {"peak_bytes": 10**14}, {"peak_bytes": 5}],
)
def test_a_job_that_says_nothing_of_the_estimate_is_left_out(odd: dict[str, Any]):
    ended(2.5, exact=True, **odd)
    assert factor() == 1.0


def test_it_is_learnt_once_and_kept_when_the_job_is_deleted(home: Path):
    folder = ended(2.5, exact=True)
    assert factor() == pytest.approx(0.5)
    store.remove(folder)
    assert factor() == pytest.approx(0.5)
    assert len(calibration.learn()) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", '{"entries": 3}', '{"entries": [{"machine": 1}], "seen": []}'])
def test_a_damaged_record_is_begun_again(home: Path, text: str):
    ended(2.5, exact=True)
    (home / "calibration.json").write_text(text)
    assert factor() == pytest.approx(0.5)
