"""Every row the run will see is tokenized before the first step, so that none fails or poisons it hours later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from mcp_server.datasets.lengths import padded_length, padding_share
from mcp_server.errors import DataError
from mcp_server.workers.batches import Batch
from mcp_server.workers.job import WorkerJob
from mcp_server.workers.tokens import TokenRows
from mcp_server.workers.watch import Alert

_CUT_SHARE = 0.005  # of all tokens, from which rows that are cut are worth an alert
_PADDING_SHARE = 0.4


def progress(worker: WorkerJob, rows: TokenRows, name: str) -> Callable[[], None]:
    """What ``rows`` calls for each row it tokenizes: tells how far it is, and ends the job when it is asked to stop."""
    told = time.monotonic()

    def tell() -> None:
        nonlocal told
        if time.monotonic() - told > 2:
            told = time.monotonic()
            worker.check_stop()
            worker.events.write("progress", name=f"tokenizing {name}", step=rows.seen.rows, total=len(rows))

    return tell


def check_rows(worker: WorkerJob, rows: TokenRows, batches: Iterable[Batch], name: str, *, stock: bool) -> list[Alert]:
    """Tokenize the rows of ``batches`` and say what is lost.

    Raises DataError naming file and rows when the chat template refuses one, and when nothing would be trained: of any row
    at all, or with ``stock``, where such rows can't be left out, of one (its batch could turn the whole run into NaN).
    """
    places = tokens = 0
    seen: set[int] = set()
    widest = 0
    for batch in batches:
        worker.check_stop()
        lengths = [rows.length(piece) for piece in batch]
        places += len(batch) * padded_length(max(lengths), rows.max_seq_length)
        tokens += sum(lengths)
        widest = max(widest, len(batch))
        seen.update(batch)
    if rows.seen.untrained and (stock or not seen):
        raise DataError(
            f"nothing would be learnt from {rows.untrained_text()}: the prompt alone fills "
            f"max_seq_length={rows.max_seq_length}; raise max_seq_length or remove the rows"
        )
    if not seen:
        raise DataError(
            f"every row of {name} is longer than max_seq_length={rows.max_seq_length} and dropped; raise it"
        )
    padding = 1 - tokens / places
    # Pieces are numbered as they were read: in file order, or shuffled.
    unsorted = padding_share([rows.length(piece) for piece in sorted(seen)], widest, rows.max_seq_length)
    figures = {"rows": rows.seen.rows, "padding": round(padding, 4), "padding_unsorted": round(unsorted, 4)}
    what = f"{name}: {rows.seen.rows} rows tokenized"
    if rows.seen.split:
        what += f", {rows.seen.split} longer than {rows.max_seq_length} tokens split into {rows.seen.windows} windows"
    worker.events.write("phase", name=what, **figures)
    alerts = _lost(rows, name)
    if name == "train" and padding >= _PADDING_SHARE and widest > 1:
        alerts.append(Alert("padding", f"{padding:.0%} of each batch is padding"))
    return alerts


def _lost(rows: TokenRows, name: str) -> list[Alert]:
    """What became of rows that did not fit."""
    seen, window = rows.seen, rows.max_seq_length
    alerts: list[Alert] = []
    if seen.dropped:
        alerts.append(
            Alert(
                "rows-dropped",
                f"{len(seen.dropped)} of {seen.rows} rows of {name} are longer than {window} tokens and left out: "
                f"{rows.places(sorted(seen.dropped))}",
            )
        )
    if seen.untrained:
        alerts.append(
            Alert(
                "rows-dropped",
                f"nothing would be learnt from {rows.untrained_text()} of {name} within {window} tokens: left out",
            )
        )
    if seen.cut and seen.tokens_lost / seen.tokens >= _CUT_SHARE:
        lost = f"{seen.tokens_lost / seen.tokens:.1%} of its tokens are cut"
        alerts.append(Alert("rows-cut", f"{seen.cut} rows of {name} are longer than {window} tokens: {lost}"))
    return alerts
