"""``prepare_dataset``: from what people have to what mlx-lm reads. The source is only read; the output is new and whole.

Rows are read, converted and checked once and spooled; what is kept in memory is about 250 bytes a row.
"""

from __future__ import annotations

import hashlib
import random
import time
from array import array
from collections import Counter
from pathlib import Path
from typing import Any

from mcp_server import settings
from mcp_server.datasets import hub, tokens
from mcp_server.datasets.duplicates import Groups
from mcp_server.datasets.findings import Finding
from mcp_server.datasets.gather import Gathered, gather
from mcp_server.datasets.preparation import PrepareReport, PrepareRequest
from mcp_server.datasets.sources import TEXT_FILES, find_files
from mcp_server.datasets.split import assign
from mcp_server.datasets.staging import Staging, require_new
from mcp_server.datasets.tokens import TokenFile, TokenRequest
from mcp_server.datasets.watch import Watch
from mcp_server.errors import DataError, PathError
from mcp_server.jobs.files import write_json
from mcp_server.models import folder as models

SPLITS = ("train", "valid", "test")
_TEXTS_KEPT_WHOLE = 20  # text files from which on the pieces of one stay together
_UNBOUNDED = 1 << 30
_FEW = 4  # rows


def prepare_dataset(request: PrepareRequest, watch: Watch) -> PrepareReport:
    """Write ``request.output``. Raises DataError (nothing usable), PathError (output), ModelError, Cancelled; nothing is left
    then."""
    started = time.monotonic()
    output = settings.resolve(request.output)
    require_new(output)
    with hub.local(request.source, request.hf_dataset, watch) as found:
        report = _prepare(request, found.path, output, found.warnings(), watch)
    report.seconds = round(time.monotonic() - started, 1)
    return report


def _prepare(request: PrepareRequest, source: Path, output: Path, warnings: list[str], watch: Watch) -> PrepareReport:
    files, ignored = find_files(source)
    if source.is_dir() and source in output.parents:
        raise PathError(
            f"output {output} lies inside the source {source}; choose a folder outside, sources are not changed"
        )
    model = None if request.model is None else str(models.locate(request.model) or request.model)
    with Staging(output) as staging:
        spool = staging.folder / "spool.jsonl"
        gathered = gather(request, files, spool, watch)
        if model is not None:
            _drop_by_tokens(gathered, request, model, spool, watch)
        groups = _group(gathered, request, spool, watch)
        alive = [row for row in range(gathered.rows) if gathered.alive[row]]
        if not alive:
            reasons = "; ".join(example for found in gathered.dropped() for example in found.examples[:1])
            raise DataError(
                f"no row of {source} can be used: {reasons or 'it is empty'}; correct the source or give mapping"
            )
        sizes = Counter(groups.find(row) for row in alive)
        assigned = assign(dict(sorted(sizes.items())), valid=request.valid, test=request.test, seed=request.seed)
        rows = _write(staging.folder, spool, gathered, alive, groups, assigned, request.seed, watch)
        spool.unlink()
        report = PrepareReport(
            summary=_summary(gathered, rows),
            output=str(output),
            format=gathered.format,
            rows=rows,
            read={_name(path, source): count for path, count in list(gathered.read.items())[:20]},
            files_read=len(gathered.read),
            ignored_files=[_name(path, source) for path in ignored[:10]],
            shapes=dict(gathered.layouts.most_common(8)),
            dropped=gathered.dropped(),
            dropped_rows=sum(found.rows for found in gathered.dropped()),
            near_groups=None if request.near_duplicates != "together" else sum(size > 1 for size in sizes.values()),
            warnings=[*warnings, *_warnings(gathered, request, rows, sizes)],
            next_step=f"look at it with inspect_dataset(data={str(output)!r}, model=...), then start_lora_training",
            seconds=0.0,
        )
        write_json(staging.folder / "preparation.json", _record(request, report, gathered, source))
        watch.tick(1, 1, "writing")
        staging.publish()
    return report


def _drop_by_tokens(gathered: Gathered, request: PrepareRequest, model: str, spool: Path, watch: Watch) -> None:
    """Drop rows that the model's template refuses and rows of more than ``max_tokens``."""
    if not gathered.rows:
        return
    lengths_file = spool.with_suffix(".lengths")
    limit = request.max_tokens or _UNBOUNDED
    answer = tokens.measure(
        TokenRequest(
            model=model,
            files=[TokenFile(split="train", path=str(spool), lines=gathered.rows)],
            max_seq_length=limit,
            batch_size=1,
            mask_prompt=False,
            lengths_to=str(lengths_file),
        ),
        watch,
    )
    lengths = array("I")
    lengths.frombytes(lengths_file.read_bytes())
    lengths_file.unlink()
    refusals = {finding.line: finding for finding in answer.findings if finding.severity == "error"}
    refused = next(iter(refusals.values()), None)
    for row, length in enumerate(lengths):
        if length == 0:
            gathered.drop_row(row, *_refusal(refusals.get(row + 1), refused))
        elif length > limit:
            gathered.drop_row(row, "too-many-tokens", f"has {length:,} tokens, more than max_tokens={limit:,}")


def _refusal(own: Finding | None, any_other: Finding | None) -> tuple[str, str]:
    finding = own or any_other
    return (finding.code, finding.message) if finding else ("not-rendered", "can't be rendered by the model's template")


def _group(gathered: Gathered, request: PrepareRequest, spool: Path, watch: Watch) -> Groups:
    """Rows that must not be split apart; with near_duplicates='drop' the later of two alike is dropped instead."""
    groups = Groups(gathered.rows)
    if gathered.near is not None:
        dropping = request.near_duplicates == "drop"
        alive = gathered.alive

        def wanted(one: int, other: int) -> bool:
            return bool(alive[one] and alive[other]) and (dropping or groups.find(one) != groups.find(other))

        with gathered.reader(spool) as text_of:
            pairs = gathered.near.pairs(text_of, wanted, lambda done, of: watch.tick(done, of, "near-duplicates"))
            for one, other, similarity in pairs:
                if dropping:
                    gathered.drop_row(other, "near-duplicate", f"is {similarity:.0%} alike to {gathered.origin(one)}")
                else:
                    groups.join(one, other)
    texts = [path for path in gathered.read if path.suffix.lower() in TEXT_FILES]
    if len(texts) >= _TEXTS_KEPT_WHOLE:
        for row in range(1, gathered.rows):
            if gathered.file_of(row) == gathered.file_of(row - 1):
                groups.join(row - 1, row)
    return groups


def _write(
    folder: Path,
    spool: Path,
    gathered: Gathered,
    alive: list[int],
    groups: Groups,
    assigned: dict[int, str],
    seed: int,
    watch: Watch,
) -> dict[str, int]:
    """Write the splits, each in a seeded order (mlx-lm's batches are rows that follow each other); rows of each."""
    chosen: dict[str, list[int]] = {name: [] for name in SPLITS}
    for row in alive:
        chosen[assigned[groups.find(row)]].append(row)
    with spool.open("rb") as lines:
        for name, rows in chosen.items():
            if not rows:
                continue
            random.Random(f"{seed} {name}").shuffle(rows)
            with (folder / f"{name}.jsonl").open("wb") as out:
                for done, row in enumerate(rows):
                    if not done & 0x3FF:
                        watch.tick(done, len(rows), f"writing {name}.jsonl")
                    lines.seek(gathered.offsets[row])
                    out.write(lines.readline())
    return {name: len(rows) for name, rows in chosen.items() if rows}


def _summary(gathered: Gathered, rows: dict[str, int]) -> str:
    dropped = gathered.dropped()
    text = f"Read {sum(gathered.read.values()):,} rows, wrote " + ", ".join(
        f"{n:,} to {name}" for name, n in rows.items()
    )
    if dropped:
        reasons = ", ".join(f"{found.rows:,} {found.reason}" for found in dropped[:6])
        text += f"; left out {sum(found.rows for found in dropped):,} ({reasons})"
    return text + "."


def _warnings(gathered: Gathered, request: PrepareRequest, rows: dict[str, int], sizes: Counter[int]) -> list[str]:
    found = list(gathered.warnings)
    total = sum(rows.values())
    for name, share in (("valid", request.valid), ("test", request.test)):
        if share and name not in rows:
            found.append(f"{name}.jsonl could not be made: there are too few groups of rows that are unlike each other")
        elif share and abs(rows[name] - share * total) > max(1, 0.2 * share * total):
            found.append(
                f"{name}.jsonl has {rows[name] / total:.1%} of the rows instead of {share:.0%}: groups stay together"
            )
        if name in rows and rows[name] < _FEW:
            found.append(f"{name}.jsonl has {rows[name]} rows: a loss on so few says little; give a larger share")
    largest = max(sizes.values())
    if largest > total / 4 and largest > 1:
        found.append(
            f"{largest:,} of {total:,} rows are in one group of near-duplicates and all went to one split; "
            "near_duplicates='drop' keeps one of each"
        )
    return found


def _record(request: PrepareRequest, report: PrepareReport, gathered: Gathered, source: Path) -> dict[str, Any]:
    """``preparation.json``: how the folder can be made again. No times, so that the same call writes the same bytes."""
    options = request.model_dump(mode="json", exclude={"output"})
    kept = report.model_dump(mode="json", include={"format", "rows", "shapes", "dropped", "near_groups", "warnings"})
    files = {_name(path, source): {"rows": count, "sha256": _sha256(path)} for path, count in gathered.read.items()}
    return {"prepare_dataset": options, "files": files, **kept}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(path: Path, source: Path) -> str:
    return path.name if path == source else str(path.relative_to(source))
