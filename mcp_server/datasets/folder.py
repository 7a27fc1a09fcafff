"""A data folder as mlx-lm reads it, checked line by line before a job starts: file, line, what is wrong, what to do."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from mcp_server.datasets.rows import Problem, check_line
from mcp_server.errors import DataError

SPLITS = ("train", "valid", "test")
_SHOWN = 5


class SplitReport(BaseModel):
    """One file of the data set."""

    path: str
    rows: int
    format: str


class DataReport(BaseModel):
    """The splits that exist and the warnings found in them."""

    splits: dict[str, SplitReport]
    warnings: list[str]


def check_for_training(
    folder: Path, *, batch_size: int, validate: bool, test: bool, names: dict[str, str] | None = None
) -> DataReport:
    """Check every line of the splits a training needs. ``names``: the data's own field name → mlx-lm's.

    Raises DataError naming the file, the first bad lines and the remedy; nothing is changed.
    """
    report = _check_folder(folder, names=names)
    if "train" not in report.splits:
        raise DataError(f"{folder} has no train.jsonl; put the examples there, one JSON object a line{_others(folder)}")
    if validate and "valid" not in report.splits:
        raise DataError(
            f"{folder} has no valid.jsonl, so overfitting could not be seen; move about a tenth of train.jsonl there, "
            "or pass val_batches=0 to train without validation"
        )
    if test and "test" not in report.splits:
        raise DataError(f"{folder} has no test.jsonl; make one, or pass test=false")
    needed = ["train", *(["valid"] if validate else []), *(["test"] if test else [])]
    for name in needed:
        rows = report.splits[name].rows
        if rows < batch_size:
            raise DataError(
                f"{report.splits[name].path} has {rows} row{'s' * (rows != 1)}, fewer than batch_size={batch_size}; "
                f"use a batch_size of at most {rows} or add rows"
            )
    return report


def check_split(folder: Path, name: str) -> SplitReport:
    """Check one split that must exist. Raises DataError as above."""
    report = _check_folder(folder, only=name)
    if name not in report.splits:
        raise DataError(f"{folder} has no {name}.jsonl; it is what the model is measured on, make one{_others(folder)}")
    return report.splits[name]


def _check_folder(folder: Path, only: str | None = None, names: dict[str, str] | None = None) -> DataReport:
    if not folder.exists():
        raise DataError(f"data folder {folder} does not exist; give a folder with train.jsonl and valid.jsonl")
    if not folder.is_dir():
        raise DataError(f"data {folder} is a file; give the folder that holds train.jsonl and valid.jsonl")
    splits: dict[str, SplitReport] = {}
    warnings: list[str] = []
    for name in SPLITS:
        file = folder / f"{name}.jsonl"
        if (only is None or name == only) and file.exists():
            splits[name] = _check_file(file, warnings, names)
    return DataReport(splits=splits, warnings=warnings)


def _check_file(file: Path, warnings: list[str], names: dict[str, str] | None) -> SplitReport:
    found: str | None = None
    rows = 0
    errors: list[str] = []
    error_count = 0
    warned: dict[str, tuple[int, Problem, int]] = {}
    try:
        with file.open("rb") as lines:
            for number, raw in enumerate(lines, start=1):
                try:
                    text = raw.decode("utf-8").rstrip("\r\n")
                except UnicodeDecodeError as error:
                    problems, row_format = (
                        [Problem("encoding", f"is not UTF-8 ({error.reason} at byte {error.start})")],
                        None,
                    )
                else:
                    row_format, problems = check_line(text, found, names)
                rows += 1
                found = found or row_format
                for problem in problems:
                    if problem.severity == "error":
                        error_count += 1
                        if len(errors) < _SHOWN:
                            errors.append(f"{file}:{number} {problem.message}")
                    else:
                        line, first, count = warned.get(problem.code, (number, problem, 0))
                        warned[problem.code] = (line, first, count + 1)
    except OSError as error:
        raise DataError(f"{file} can't be read: {error.strerror or error}; check its permissions") from error
    if error_count:
        more = f" (showing {len(errors)} of {error_count} problems)" if error_count > len(errors) else ""
        raise DataError("; ".join(errors) + more + "; correct these lines and start again")
    if rows == 0 or found is None:
        raise DataError(f"{file} is empty; put examples there, one JSON object a line, or delete the file")
    for line, problem, count in warned.values():
        also = f" (and {count - 1} more lines)" if count > 1 else ""
        warnings.append(f"{file}:{line} {problem.message}{also}")
    return SplitReport(path=str(file), rows=rows, format=found)


def _others(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir())[:5]
    return f" (the folder holds {', '.join(names)})" if names else " (the folder is empty)"
