"""The text that models are compared and calibrated on: the user's, else a short general one that comes with the package."""

from __future__ import annotations

from pathlib import Path

from mcp_server import settings
from mcp_server.datasets.folder import SPLITS, check_split
from mcp_server.errors import DataError

GENERAL_TEXT = Path(__file__).with_name("general.txt")


def find_text(given: str, argument: str, order: tuple[str, ...]) -> Path:
    """The file that ``given`` means: itself, or of a data folder the first split of ``order``. Raises DataError, naming
    ``argument``, when there is none, when a row is faulty, or when it is not text."""
    path = settings.resolve(given)
    if path.is_dir():
        names = [name for name in order if (path / f"{name}.jsonl").exists()]
        if not names:
            wanted = ", ".join(f"{name}.jsonl" for name in order)
            raise DataError(f"{argument} {path} has none of {wanted}; give a data folder or a text file")
        path = path / f"{names[0]}.jsonl"
    if not path.is_file():
        raise DataError(f"{argument} {path} does not exist; give a data folder, one of its .jsonl files or a text file")
    if path.suffix == ".jsonl":
        if path.stem not in SPLITS:
            allowed = ", ".join(f"{name}.jsonl" for name in SPLITS)
            raise DataError(f"{argument} {path.name} is not one of {allowed}; rename it or give its folder")
        check_split(path.parent, path.stem)
        return path
    _check_plain(path, argument)
    return path


def _check_plain(path: Path, argument: str) -> None:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{argument} {path} is not UTF-8 text ({error}); give a text file or a data folder") from error
    if not text.strip():
        raise DataError(f"{argument} {path} is empty; give a file with text")


def name_of(path: Path) -> str:
    """The text in words, for results."""
    return "the built-in general text (give eval_data for your own)" if path == GENERAL_TEXT else str(path)
