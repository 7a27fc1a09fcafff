"""The end of a training: the adapter is there before the test, and stays whatever becomes of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mcp_server.jobs import store
from mcp_server.workers import train
from mcp_server.workers.job import WorkerJob
from mcp_server.workers.ranks import Ranks
from mcp_server.workers.window import Window
from tests.unit.test_runner import spec


class ShortOfMemory:
    """Stands for a validation: a machine that has just enough memory for the training can't be made."""

    def __init__(self) -> None:
        self.on_batch: Any = None

    def loss(self, *_: Any) -> float:
        self.on_batch()
        raise RuntimeError("[metal::malloc] Unable to allocate 9 bytes")


def test_out_of_memory_in_the_test_names_the_adapter_and_is_not_tried_again_with_a_smaller_batch(home: Path):
    worker = WorkerJob(store.create(spec(2)))
    loop = SimpleNamespace(step=6, loss=None)
    with pytest.raises(train.TrainingFailed) as raised:
        train._test(  # pyright: ignore[reportPrivateUsage]
            worker, cast(Any, None), cast(Any, ShortOfMemory()), cast(Any, loop), Ranks(), Path("/p/adapters/a")
        )
    text = str(raised.value)
    assert "the test failed: RuntimeError: [metal::malloc]" in text
    assert "its adapter is in /p/adapters/a" in text


def test_losses_not_yet_reported_of_an_older_checkpoint_are_read():
    window = Window.from_json({"sum": 3.0, "tokens": 12, "iterations": 2})
    assert window.loss() == 1.5
    assert window.as_json() == {"sum": 3.0, "iterations": 2}
