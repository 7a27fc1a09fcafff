"""Getting a model onto this machine."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.utils import tqdm
from mlx_lm.utils import DEFAULT_ALLOW_PATTERNS

from mcp_server.errors import ModelError
from mcp_server.workers.job import Stopped, WorkerJob

_LOOK_SECONDS = 1.0


def fetch(worker: WorkerJob, model: str, revision: str | None = None) -> Path:
    """The local folder of ``model``, downloaded if need be. Raises ModelError when it can't be had.

    mlx-lm is given this folder and never the id: with an id some of its functions ask the Hub again, and fail offline.
    """
    if Path(model).is_dir():
        return Path(model)
    worker.phase("downloading", model=model)
    cache = Path(constants.HF_HUB_CACHE) / f"models--{model.replace('/', '--')}"
    try:
        with told_of_growth(worker, cache, "downloading"):
            bar = _bar_that_hears(worker)
            return Path(
                snapshot_download(model, revision=revision, allow_patterns=DEFAULT_ALLOW_PATTERNS, tqdm_class=bar)
            )
    except Stopped:
        raise
    except Exception as error:
        # huggingface_hub raises a dozen types; all mean that the model did not arrive.
        text = " ".join(str(error).split())[:300]
        wanted = f"{model!r} at revision {revision!r}" if revision else repr(model)
        raise ModelError(
            f"model {wanted} could not be downloaded: {text}; check the id, your login and the network"
        ) from error


def _bar_that_hears(worker: WorkerJob) -> type[tqdm]:
    """The Hub's progress bar, told of every piece that has come, which ends the download once a stop was asked for. What
    has come stays in the cache, and the next download goes on from it."""

    class Bar(tqdm):
        def update(self, n: float | None = 1) -> bool | None:
            worker.check_stop()
            return super().update(n)

    return Bar


@contextlib.contextmanager
def told_of_growth(worker: WorkerJob, folder: Path, name: str, total: int | None = None) -> Generator[None]:
    """About once a second a ``progress`` event with the MB in ``folder``, while the body runs; ``total``: bytes expected.

    None once a stop was asked for: the body does not hear it, and the runner takes an event for a sign that somebody does.
    """
    ended = threading.Event()

    def tell() -> None:
        told = -1
        while not ended.wait(_LOOK_SECONDS):
            size = folder_bytes(folder) // 10**6
            if size != told and not worker.stop_requested:
                told = size
                expected = {"total": max(total // 10**6, size)} if total else {}
                worker.events.write("progress", name=f"{name}, MB", step=size, **expected)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def folder_bytes(folder: Path) -> int:
    """Bytes of the files below ``folder``, links not followed; files that go while it looks count nothing."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_size if path.is_file() else 0
    return total
