"""What a power cut may not take: content is on the disk before its name is, and the name before a caller goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import mlx.nn as nn
import mlx.optimizers as optim
import pytest

from mcp_server.datasets.staging import Staging
from mcp_server.jobs.files import write_json
from mcp_server.training import artifacts
from mcp_server.workers import checkpoints
from mcp_server.workers.publish import publish


def record(folder: Path) -> Path:
    write_json(folder / "state.json", {"status": "working"})
    return folder / "state.json"


def checkpoint(folder: Path) -> Path:
    model, optimizer = nn.Linear(2, 2), optim.Adam(learning_rate=0.1)
    optimizer.init(model.trainable_parameters())  # pyright: ignore[reportArgumentType]
    return checkpoints.save(folder, 4, model, optimizer, {"order": {}}, {"rank": 8})


def carried_best(folder: Path) -> Path:
    earlier = folder / "earlier"
    checkpoints.save_best(earlier, 4, 0.5, nn.Linear(2, 2), {"rank": 8})
    checkpoints.carry_best(earlier, folder, 4, 9)
    return folder / "best-0000004"


def data_set(folder: Path) -> Path:
    with Staging(folder / "data") as staging:
        (staging.folder / "train.jsonl").write_text('{"text": "a"}\n', encoding="utf-8")
        staging.publish()
    return folder / "data"


def model(folder: Path) -> Path:
    scratch = folder / ".model.partial"
    (scratch / "sub").mkdir(parents=True)
    (scratch / "model.safetensors").write_bytes(b"weights")
    (scratch / "sub/tokenizer.json").write_bytes(b"{}")
    publish(scratch, folder / "model", "mlx_path")
    return folder / "model"


def previous_adapter(folder: Path) -> Path:
    for name in ("adapter_config.json", "provenance.json", "adapters.safetensors"):
        (folder / name).write_bytes(b"dear")
    aside = artifacts.keep_aside(folder)
    assert aside is not None
    return aside


def previous_adapter_copied(folder: Path) -> Path:
    """On a disk without hard links."""

    def refused(source: Path, target: Path) -> None:
        raise PermissionError(f"{source} can't be linked to {target}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "link", refused)
        return previous_adapter(folder)


@pytest.mark.parametrize(
    "write", [record, checkpoint, carried_best, data_set, model, previous_adapter, previous_adapter_copied]
)
def test_everything_is_on_the_disk_before_it_has_its_name_and_the_name_is_too(
    write: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    done: list[tuple[str, int]] = []  # by inode, which a rename leaves as it is
    sync, replace, rename = os.fsync, os.replace, os.rename

    def synced(descriptor: int) -> None:
        done.append(("synced", os.fstat(descriptor).st_ino))
        sync(descriptor)

    def named(source: Path, target: Path) -> None:
        done.append(("named", Path(source).stat().st_ino))
        (replace if Path(source).is_file() else rename)(source, target)

    for name, instead in (("fsync", synced), ("replace", named), ("rename", named)):
        monkeypatch.setattr(os, name, instead)
    target = write(tmp_path)
    at = done.index(("named", target.stat().st_ino))
    files = [target] if target.is_file() else [path for path in target.rglob("*") if path.is_file()]
    assert {("synced", file.stat().st_ino) for file in files} <= set(done[:at])
    assert target.is_file() or ("synced", target.stat().st_ino) in done[:at], "the files' names in their folder"
    assert ("synced", tmp_path.stat().st_ino) in done[at:]
