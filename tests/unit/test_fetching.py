"""A model that comes from the Hub: a stop is heard meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcp_server.jobs import store
from mcp_server.jobs.events import read_since
from mcp_server.workers import fetching
from mcp_server.workers.job import Stopped, WorkerJob
from tests.helpers import wait_until
from tests.unit.test_runner import spec


@pytest.fixture
def worker(home: Path) -> WorkerJob:
    return WorkerJob(store.create(spec(2)))


def test_stop_ends_a_download_with_the_next_piece_that_comes(worker: WorkerJob, monkeypatch: pytest.MonkeyPatch):
    """A stand-in for the Hub, which no test can reach, that tells of its pieces as the Hub's library does."""
    came: list[int] = []

    def download(*_: Any, tqdm_class: Any, **__: Any) -> str:
        with tqdm_class(total=100, disable=True) as bar:
            for piece in range(100):
                if piece == 2:
                    worker.on_stop(15, None)
                bar.update(1)
                came.append(piece)
        return "/nowhere"

    monkeypatch.setattr(fetching, "snapshot_download", download)
    with pytest.raises(Stopped, match="stopped as asked"):
        fetching.fetch(worker, "org/big")
    assert came == [0, 1]


def test_growth_is_no_sign_of_life_once_a_stop_was_asked_for(
    worker: WorkerJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Or the runner would wait for an hour instead of two minutes for who does not hear."""
    monkeypatch.setattr(fetching, "_LOOK_SECONDS", 0.01)
    looked: list[int] = []
    size = 0

    def grown(folder: Path) -> int:
        looked.append(size)
        return size

    def told() -> list[int]:
        return [e["step"] for e in read_since(worker.folder.metrics, 0).events if e["type"] == "progress"]

    monkeypatch.setattr(fetching, "folder_bytes", grown)
    with fetching.told_of_growth(worker, tmp_path, "downloading"):
        wait_until(lambda: told() == [0], "the first event")
        worker.on_stop(15, None)
        size = 5 * 10**6
        wait_until(lambda: looked.count(size) >= 2, "two more looks")
    assert told() == [0]
