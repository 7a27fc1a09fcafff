"""One training in several processes: the same losses, the same end, nothing left behind."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import psutil
import pytest

from mcp_server.jobs import lock, service
from mcp_server.jobs.store import JobFolder
from mcp_server.settings import home
from tests.exactness import finish, losses, options, run, steps, weights
from tests.helpers import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

WORDS = "a red cat sat by the long river and saw how the old moon rose over quiet hills"


def uneven_data(folder: Path, rows: int = 40) -> None:
    """Rows of text of very unequal length, so that ranks have unequal numbers of tokens."""
    dice = random.Random(5)
    folder.mkdir(parents=True)
    for name, count in (("train", rows), ("valid", 8)):
        lines = [
            {"text": " ".join(dice.choices(WORDS.split(), k=dice.choice((2, 3, 6, 12, 30))))} for _ in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def two(**changes: Any) -> dict[str, Any]:
    """A training by two ranks over the ring, dropout included."""
    return options("lora", "adam", num_processes=2, backend="ring", **changes)


def processes(job: JobFolder) -> list[psutil.Process]:
    """The process that watches the ranks, and the ranks in order."""
    worker = job.state().worker
    assert worker is not None
    watcher = psutil.Process(worker.pid)
    return [watcher, *sorted(watcher.children(), key=lambda child: child.pid)]


def gone(found: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in found)


def test_two_ranks_have_the_losses_and_weights_of_one_on_rows_of_unequal_length(project: Path):
    uneven_data(project / "uneven")
    chosen = options(
        "lora",
        "adam",
        data="uneven",
        mask_prompt=False,
        batch_size=4,
        max_seq_length=128,
        steps_per_report=1,
        lora_parameters={"rank": 4, "scale": 10.0, "dropout": 0.0},
    )
    one = run(**chosen, adapter_path="adapters/one")
    assert finish(one) == "completed", one.state().why
    pair = run(**chosen, num_processes=2, backend="ring", adapter_path="adapters/pair")
    assert service.view(pair).ranks == 2
    assert finish(pair) == "completed", pair.state().why
    expected, seen = losses(one), losses(pair)
    assert [(kind, step) for kind, step, _ in seen] == [(kind, step) for kind, step, _ in expected]
    assert len([kind for kind, _, _ in seen if kind == "train"]) == 24
    differences = [abs(a - b) for (_, _, a), (_, _, b) in zip(seen, expected, strict=True)]
    print(max(differences))
    assert max(differences) < 1e-5
