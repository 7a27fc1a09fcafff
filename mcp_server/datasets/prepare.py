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
from mcp_server.datasets.sources import TEXT_FILES, find_files, splits_of
from mcp_server.datasets.split import DRAWN, KEPT, assign
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
_RECORDED = {"format", "rows", "kept", "shapes", "dropped", "near_groups", "warnings"}


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
        gathered = gather(request, files, {} if request.resplit else splits_of(files, source), spool, watch)
        if model is not None:
            _drop_by_tokens(gathered, request, model, spool, watch)
        groups = _group(gathered, request, spool, watch)
        chosen, kept, sizes = _split(gathered, groups, request, source)
        rows = _write(staging.folder, spool, gathered, chosen, request.seed, watch)
        spool.unlink()
        report = PrepareReport(
            summary=_summary(gathered, rows, kept),
            output=str(output),
            format=gathered.format,
            rows=rows,
            kept=kept,
            read={_name(path, source): count for path, count in list(gathered.read.items())[:20]},
            files_read=len(gathered.read),
            ignored_files=[_name(path, source) for path in ignored[:10]],
            shapes=dict(gathered.layouts.most_common(8)),
            dropped=gathered.dropped(),
            dropped_rows=sum(found.rows for found in gathered.dropped()),
            near_groups=None if request.near_duplicates != "together" else sum(size > 1 for size in sizes.values()),
            warnings=[*warnings, *_warnings(gathered, request, rows, kept, sizes)],
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
    """Rows that must not be split apart; with near_duplicates='drop' the later of two alike is dropped instead.

    Of two alike of which one keeps its split, the other is dropped.
    """
    groups = Groups(gathered.rows)
    if gathered.near is not None:
        dropping = request.near_duplicates == "drop"
        alive, ranks = gathered.alive, gathered.ranks

        def wanted(one: int, other: int) -> bool:
            return bool(alive[one] and alive[other]) and (dropping or groups.find(one) != groups.find(other))

        with gathered.reader(spool) as text_of:
            pairs = gathered.near.pairs(text_of, wanted, lambda done, of: watch.tick(done, of, "near-duplicates"))
            for one, other, similarity in pairs:
                if ranks[one] != ranks[other]:
                    firm, loose = sorted((one, other), key=lambda row: ranks[row])
                    gathered.drop_row(loose, "near-leak", f"is {similarity:.0%} alike to {gathered.place(firm)}")
                elif dropping:
                    gathered.drop_row(other, "near-duplicate", f"is {similarity:.0%} alike to {gathered.origin(one)}")
                else:
                    groups.join(one, other)
    texts = [path for path in gathered.read if path.suffix.lower() in TEXT_FILES]
    if len(texts) >= _TEXTS_KEPT_WHOLE:
        for row in range(1, gathered.rows):
            if gathered.file_of(row) == gathered.file_of(row - 1):
                groups.join(row - 1, row)
    return groups


def _split(
    gathered: Gathered, groups: Groups, request: PrepareRequest, source: Path
) -> tuple[dict[str, list[int]], list[str], Counter[int]]:
    """(rows of each split, splits that are the source's own, rows of each group of those drawn). Raises DataError."""
    chosen: dict[str, list[int]] = {name: [] for name in SPLITS}
    drawn: list[int] = []
    for row, rank in enumerate(gathered.ranks):
        if gathered.alive[row]:
            (drawn if rank == DRAWN else chosen[KEPT[rank]]).append(row)
    kept = [name for name, rows in chosen.items() if rows]
    if not drawn:
        reasons = "; ".join(example for found in gathered.dropped() for example in found.examples[:1])
        left = " for train (valid and test keep their rows; resplit=true draws all anew)" if kept else ""
        reasons = reasons or ("it holds no others" if kept else "it is empty")
        raise DataError(f"no row of {source} can be used{left}: {reasons}; correct the source or give mapping")
    sizes = Counter(groups.find(row) for row in drawn)
    valid, test = (0 if name in kept else share for name, share in (("valid", request.valid), ("test", request.test)))
    assigned = assign(dict(sorted(sizes.items())), valid=valid, test=test, seed=request.seed)
    for row in drawn:
        chosen[assigned[groups.find(row)]].append(row)
    return chosen, kept, sizes


def _write(
    folder: Path, spool: Path, gathered: Gathered, chosen: dict[str, list[int]], seed: int, watch: Watch
) -> dict[str, int]:
    """Write the splits, each in a seeded order (mlx-lm's batches are rows that follow each other); rows of each."""
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


def _summary(gathered: Gathered, rows: dict[str, int], kept: list[str]) -> str:
    dropped = gathered.dropped()
    text = f"Read {sum(gathered.read.values()):,} rows, wrote " + ", ".join(
        f"{n:,} to {name}" for name, n in rows.items()
    )
    if kept:
        drawn = [name for name in rows if name not in (*kept, "train")]
        text += f" ({' and '.join(kept)} as in the source{f', {drawn[0]} drawn from train' if drawn else ''})"
    if dropped:
        reasons = ", ".join(f"{found.rows:,} {found.reason}" for found in dropped[:6])
        text += f"; left out {sum(found.rows for found in dropped):,} ({reasons})"
    return text + "."


def _warnings(
    gathered: Gathered, request: PrepareRequest, rows: dict[str, int], kept: list[str], sizes: Counter[int]
) -> list[str]:
    found = list(gathered.warnings)
    total = sum(sizes.values())
    for name, share in (("valid", request.valid), ("test", request.test)):
        drawn = share and name not in kept
        if drawn and name not in rows:
            found.append(f"{name}.jsonl could not be made: there are too few groups of rows that are unlike each other")
        elif drawn and abs(rows[name] - share * total) > max(1, 0.2 * share * total):
            found.append(
                f"{name}.jsonl has {rows[name] / total:.1%} of the rows instead of {share:.0%}: groups stay together"
            )
        if name in rows and rows[name] < _FEW:
            remedy = "add rows, or draw it anew with resplit=true" if name in kept else "give a larger share"
            found.append(f"{name}.jsonl has {rows[name]} rows: a loss on so few says little; {remedy}")
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
    kept = report.model_dump(mode="json", include=_RECORDED)
    files = {_name(path, source): {"rows": count, "sha256": _sha256(path)} for path, count in gathered.read.items()}
    return {"prepare_dataset": options, "files": files, **kept}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _name(path: Path, source: Path) -> str:
    return path.name if path == source else str(path.relative_to(source))
