"""Checkpoints: everything an exact continuation needs, in a folder that appears whole or not at all.

checkpoints/0000100/
    adapters.safetensors     trainable weights; with adapter_config.json stock mlx-lm loads the folder as an adapter
    adapter_config.json
    optimizer.safetensors    optimizer state, flattened as ``mlx.utils.tree_flatten`` does
    checkpoint.json          step, position in the data, random states, losses not yet reported
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.optimizers import Optimizer
from mlx.utils import tree_flatten, tree_unflatten

from mcp_server.jobs.files import read_json, sync_folder

WEIGHTS, CONFIG, OPTIMIZER, POSITION = (
    "adapters.safetensors",
    "adapter_config.json",
    "optimizer.safetensors",
    "checkpoint.json",
)


def save(
    parent: Path, step: int, model: nn.Module, optimizer: Optimizer, position: dict[str, Any], config: dict[str, Any]
) -> Path:
    """Write the checkpoint of ``step`` under ``parent``; its folder. Raises OSError and leaves nothing when it can't."""
    state = cast(dict[str, mx.array], dict(tree_flatten(optimizer.state)))
    files: dict[str, Callable[[Path], None]] = {
        WEIGHTS: lambda file: save_weights(file, model),
        OPTIMIZER: lambda file: _save_arrays(file, state),
    }
    return _write_folder(parent, f"{step:07d}", config, {"step": step, **position}, files)


def _write_folder(
    parent: Path, name: str, config: dict[str, Any], record: dict[str, Any], files: dict[str, Callable[[Path], None]]
) -> Path:
    """A folder that appears whole or not at all."""
    target = parent / name
    if (target / POSITION).exists():
        return target  # the same step again, after a resume

    def fill(temporary: Path) -> None:
        for file, write in files.items():
            write(temporary / file)
        (temporary / CONFIG).write_text(json.dumps(config, indent=4), encoding="utf-8")
        (temporary / POSITION).write_text(json.dumps(record), encoding="utf-8")

    _appear(target, fill)
    return target


def _appear(target: Path, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write a temporary folder; on the disk, it gets its name."""
    parent = target.parent
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=parent))
    try:
        fill(temporary)
        for file in temporary.iterdir():
            _sync(file)
        sync_folder(temporary)
        temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(parent)


def save_weights(file: Path, model: nn.Module) -> None:
    """The trainable weights, as mlx-lm saves them. Raises OSError when the disk will not take them."""
    _save_arrays(file, dict(tree_flatten(model.trainable_parameters())))


def _save_arrays(file: Path, arrays: dict[str, mx.array]) -> None:
    try:
        mx.save_safetensors(str(file), arrays)
    except (RuntimeError, ValueError) as error:
        raise OSError(f"{file} could not be written: {error}") from error
    expected = sum(array.nbytes for array in arrays.values())
    # mlx does not report every short write.
    if file.stat().st_size <= expected:
        raise OSError(f"{file} was cut short: {file.stat().st_size} of more than {expected} bytes; is the disk full?")


def _sync(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())


def load(folder: Path, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Put a checkpoint back into ``model`` and ``optimizer``; its position record.

    The optimizer keeps its own learning rate, which is the checkpoint's unless another was asked for.
    """
    model.load_weights(str(folder / WEIGHTS), strict=False)
    arrays = mx.load(str(folder / OPTIMIZER))
    assert isinstance(arrays, dict)
    rate = optimizer.learning_rate
    optimizer.state = tree_unflatten(list(arrays.items()))
    optimizer.state["learning_rate"] = rate
    mx.eval(model.parameters(), optimizer.state)
    return json.loads((folder / POSITION).read_text(encoding="utf-8"))


def save_best(parent: Path, step: int, val_loss: float, model: nn.Module, config: dict[str, Any]) -> Path:
    """Put the weights of the lowest validation loss in ``parent/best-<step>``, loadable as an adapter; its folder."""
    record = {"step": step, "val_loss": val_loss}
    folder = _write_folder(
        parent, f"best-{step:07d}", config, record, {WEIGHTS: lambda file: save_weights(file, model)}
    )
    for older in parent.glob("best-*"):
        if older != folder:
            shutil.rmtree(older, ignore_errors=True)
    return folder


def carry_best(source: Path, parent: Path, best_step: int | None, step: int) -> None:
    """Have in ``parent`` the best weights, those of ``best_step``, of a run that goes on at ``step`` from a checkpoint in
    ``source``, where they are still there.

    A run killed after a later best has them no more; going on exactly, it comes to that best again. Going on with other
    rows, as after an out-of-memory, it need not: bests of later steps go.
    """
    for later in parent.glob("best-*"):
        if best_step_of(later) > step:
            shutil.rmtree(later, ignore_errors=True)
    if best_step is None:
        return
    found, target = source / f"best-{best_step:07d}", parent / f"best-{best_step:07d}"

    def fill(temporary: Path) -> None:
        shutil.copytree(found, temporary, dirs_exist_ok=True)

    if (found / POSITION).exists() and not target.exists():
        _appear(target, fill)


def best(parent: Path) -> Path | None:
    """The folder of the lowest validation loss whose weights could be kept."""
    found = sorted(parent.glob(f"best-*/{POSITION}"))
    return found[-1].parent if found else None


def best_step_of(folder: Path) -> int:
    """The step whose weights ``folder``, a ``best-<step>``, holds."""
    return int(folder.name.removeprefix("best-"))


def beats_best(parent: Path, val_loss: float) -> bool:
    """Whether weights of this loss are better than those that are kept: on a full disk they need not be the best so far."""
    kept = best(parent)
    record = read_json(kept / POSITION) if kept is not None else None
    return record is None or val_loss < record["val_loss"]


def finite(model: nn.Module) -> bool:
    """Whether every trainable weight is a finite number."""
    weights = cast(list[tuple[str, mx.array]], tree_flatten(model.trainable_parameters()))
    return bool(mx.all(mx.stack([mx.all(mx.isfinite(weight)) for _, weight in weights])).item())


def random_key() -> list[int]:
    """The state of MLX's random generator, from which dropout draws."""
    state = cast(list[mx.array], mx.random.state)
    return cast(list[int], state[0].tolist())


def set_random_key(key: list[int]) -> None:
    """Put MLX's random generator into the state of ``key``."""
    high, low = key  # a seed's two halves are the key it makes
    mx.random.seed((high << 32) | low)


def prune(parent: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` numbered checkpoints, and what a killed save left half written."""
    for folder in sorted(folder for folder in parent.glob("[0-9]*") if folder.is_dir())[:-keep]:
        # Renamed first: a checkpoint that is half deleted must not look like one.
        doomed = parent / f".tmp-{folder.name}"
        folder.rename(doomed)
    for leftover in parent.glob(".tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
