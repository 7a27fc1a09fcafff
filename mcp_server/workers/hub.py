"""Data through mlx-lm's own loader, local or from the Hub; and a Hub data set as .jsonl files (``datasets/hub.py``)."""

from __future__ import annotations

import importlib
import json
import types
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from mlx_lm.tuner import datasets as mlx_lm_datasets

from mcp_server.datasets.features import FeatureNames
from mcp_server.datasets.hub import HubAnswer, HubRequest, entries, name_of
from mcp_server.datasets.rows import renamed
from mcp_server.errors import DataError
from mcp_server.platform.interpreter import install
from mcp_server.workers.voice import Voice, answer

_SPLITS = ("train", "valid", "test")
_OLDEST = 4  # the library's versions before it ran Python that came with a data set


def load_rows(arguments: types.SimpleNamespace, tokenizer: Any) -> tuple[Any, Any, Any]:
    """``mlx_lm``'s data sets for train, valid and test. Raises DataError saying what to do."""
    hub = getattr(arguments, "hf_dataset", None)
    if hub is None and Path(arguments.data).exists():
        try:
            return mlx_lm_datasets.load_dataset(arguments, tokenizer)
        except (ValueError, KeyError, IndexError) as error:
            raise DataError(f"the data in {arguments.data} can't be used: {type(error).__name__}: {error}") from error
    _check_library(arguments.data, hub)
    name = name_of(arguments.data, hub)
    try:
        return mlx_lm_datasets.load_dataset(arguments, tokenizer)
    except Exception as error:
        # datasets, huggingface_hub, pyarrow and the system raise dozens of types; the name of most says enough.
        raise DataError(f"the data set {name} {_reason(error)}") from error


def _check_library(data: str, hub: Any) -> None:
    advice = f"install it: {install(f'datasets>={_OLDEST}')}, or give a folder"
    try:
        library: Any = importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        what = (
            "hf_dataset"
            if hub is not None
            else f"data {data!r} is no folder here, so it was looked for on the Hub, which"
        )
        raise DataError(f"{what} needs the library {error.name!r}; {advice}") from error
    if int(library.__version__.split(".")[0]) < _OLDEST:
        raise DataError(f"datasets {library.__version__} is too old: it runs code that comes with data; {advice}")


def _reason(error: Exception) -> str:
    chained = _chain(error)
    kinds = {kind.__name__ for one in chained for kind in type(one).__mro__}
    text = " ".join(str(error).split())[:300]
    if "DatasetNotFoundError" in kinds:
        return "does not exist on the Hub, or is private; check the name, and your login (`hf auth login`)"
    if "ConnectionError" in kinds:
        return f"is not on this machine, and the Hub can't be reached ({text}); go online, or give a folder"
    return f"can't be used: {type(error).__name__}: {text}; check its name, splits and fields, or make a folder of it"


def _chain(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


class _Rows:
    """A data set of the library as mlx-lm gets it, with the fields under mlx-lm's names, and no model's format asked of it."""

    def __init__(self, data: Any, tokenizer: Any, config: Any) -> None:
        own = {name: value for name, value in vars(config).items() if name in FeatureNames.model_fields}
        self._data, self._names = data, FeatureNames(**own).features

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (renamed(row, self._names) for row in self._data)


def export(request: HubRequest, voice: Voice) -> HubAnswer:
    """Write ``train.jsonl`` and so on into the request's folder, with what a training of the same arguments would see."""
    sets = entries(request.hf_dataset)
    arguments = types.SimpleNamespace(
        data=request.data,
        hf_dataset=request.hf_dataset,
        train=True,
        # mlx-lm's test_split has no default, and without one it would get all splits at once.
        test=bool(sets) and all(one.get("test_split") for one in sets),
    )
    # What is not trainable is what is looked for: mlx-lm's own loader, without its choice of a format.
    mlx_lm_datasets.create_dataset = _Rows
    found = dict(zip(_SPLITS, load_rows(arguments, None), strict=True))
    rows: dict[str, int] = {}
    for name, data in found.items():
        if len(data):
            rows[name] = _write(Path(request.folder, f"{name}.jsonl"), data, _teller(voice, name, len(data)))
    left_out = {} if sets else _other_splits(request.data)
    return HubAnswer(rows=rows, left_out=left_out)


def _write(file: Path, data: Any, tell: Callable[[int], None]) -> int:
    several = isinstance(data, mlx_lm_datasets.ConcatenatedDataset)
    parts: Iterable[_Rows] = data._data if several else [data]  # pyright: ignore[reportPrivateUsage]
    count = 0
    with file.open("w", encoding="utf-8") as out:
        for row in chain.from_iterable(parts):
            # Dates and pictures have no JSON of their own.
            out.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
            count += 1
            tell(count)
    return count


def _teller(voice: Voice, name: str, total: int) -> Callable[[int], None]:
    return lambda done: voice.progress(done, total, f"reading {name}")


def _other_splits(data: str) -> dict[str, int]:
    """Rows of the splits that mlx-lm leaves out; from the library's cache by now."""
    library: Any = importlib.import_module("datasets")
    return {name: len(split) for name, split in library.load_dataset(data).items() if name not in _SPLITS}


if __name__ == "__main__":
    answer(HubRequest, export, "loading the data set")
