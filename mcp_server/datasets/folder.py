"""A data folder as mlx-lm reads it, checked line by line before a job starts: file, line, what is wrong, what to do."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from mcp_server.datasets.features import NAME_THEM
from mcp_server.datasets.findings import LINES_KEPT, Collector
from mcp_server.datasets.scan import FileScan, check_splits, others, scan_file
from mcp_server.errors import DataError

SPLITS = ("train", "valid", "test")


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
    folder: Path,
    *,
    batch_size: int,
    validate: bool,
    test: bool,
    mask_prompt: bool = False,
    assistant_only_loss: bool = False,
    stock: bool = False,
    names: dict[str, str] | None = None,
) -> DataReport:
    """Check every line of the splits a training needs. ``names``: the data's own field name → mlx-lm's.

    Raises DataError naming the file, the first bad lines and the remedy; nothing is changed.
    """
    findings = Collector()
    needed = {"train": True, "valid": validate, "test": test}
    scans = _scan_folder(folder, findings, names=names)
    warnings: list[str] = []
    for path, severity, problem in check_splits(
        scans,
        folder,
        batch_size=batch_size,
        validate=validate,
        test=test,
        mask_prompt=mask_prompt,
        assistant_only_loss=assistant_only_loss,
        stock=stock,
    ):
        if severity == "error":
            raise DataError(f"{path} {problem.message}")
        if problem.code == "fewer-than-batch" and needed[path.stem]:
            warnings.append(f"{path.name} {problem.message}")
    return DataReport(
        splits={name: _report(scan) for name, scan in scans.items()},
        warnings=[*warnings, *(found.text() for found in findings.sorted())],
    )


def check_split(folder: Path, name: str, names: dict[str, str] | None = None) -> SplitReport:
    """Check one split that must exist. Raises DataError as above."""
    scans = _scan_folder(folder, Collector(), only=name, names=names)
    if name not in scans:
        raise DataError(f"{folder} has no {name}.jsonl; it is what the model is measured on, make one{others(folder)}")
    if not scans[name].formats:
        raise DataError(f"{scans[name].path} is empty; put examples there, one JSON object a line, or delete the file")
    return _report(scans[name])


def require_folder(folder: Path) -> None:
    """Raises DataError when ``folder`` is not one (mlx-lm would look for a Hub data set of that name)."""
    if not folder.exists():
        raise DataError(f"data folder {folder} does not exist; give a folder with train.jsonl and valid.jsonl")
    if not folder.is_dir():
        raise DataError(f"data {folder} is a file; give the folder that holds train.jsonl and valid.jsonl")


def _scan_folder(
    folder: Path, findings: Collector, only: str | None = None, names: dict[str, str] | None = None
) -> dict[str, FileScan]:
    """Raises DataError at the first file with errors, naming the first of them."""
    require_folder(folder)
    scans: dict[str, FileScan] = {}
    for name in SPLITS:
        file = folder / f"{name}.jsonl"
        if (only is None or name == only) and file.exists():
            scans[name] = scan_file(file, findings, names=names)
            if findings.error_count:
                shown = findings.first_errors
                more = f" (showing {LINES_KEPT} of {findings.error_count} problems)"
                tail = more if findings.error_count > LINES_KEPT else ""
                # Where names can be given: that no row has a known format may be a matter of these.
                unknown = not scans[name].formats and any(one.code == "unknown-format" for one in findings.sorted())
                named = f"{NAME_THEM}, or " if names is not None and unknown else ""
                raise DataError(f"{'; '.join(shown)}{tail}; {named}correct these lines and start again")
    return scans


def _report(scan: FileScan) -> SplitReport:
    return SplitReport(path=str(scan.path), rows=scan.lines, format=scan.format or "")
