"""``inspect_dataset``: everything that can be known of a data set before it is trained on. It changes nothing.

The structural part reads each file once and keeps about 250 bytes a row; the token part is a process of its own.
"""

from __future__ import annotations

import heapq
import time
from pathlib import Path

from mcp_server.datasets import hub, tokens
from mcp_server.datasets.findings import Collector
from mcp_server.datasets.folder import SPLITS, require_folder
from mcp_server.datasets.report import InspectReport, InspectRequest
from mcp_server.datasets.rows import Problem
from mcp_server.datasets.scan import FileScan, check_splits, scan_file
from mcp_server.datasets.survey import Survey
from mcp_server.datasets.tokens import TokenReport, TokenRequest
from mcp_server.datasets.watch import Watch
from mcp_server.errors import DataError
from mcp_server.models import folder as models

_LONGEST = 2000  # rows by characters whose tokens are counted whatever the sample


def inspect_dataset(request: InspectRequest, watch: Watch) -> InspectReport:
    """Inspect ``request.data``. Raises DataError when there is nothing to inspect, ModelError for ``model``, Cancelled."""
    started = time.monotonic()
    with hub.local(request.data, request.hf_dataset, watch) as source:
        report = _inspect(request, source.path, source.warnings(), watch)
        if source.name is not None:  # its files are named as training names them
            report = InspectReport.model_validate(source.said(report.model_dump(mode="json")))
    report.seconds = round(time.monotonic() - started, 1)
    return report


def _inspect(request: InspectRequest, data: Path, warnings: list[str], watch: Watch) -> InspectReport:
    files = _files(data)
    # Of hf_dataset each entry has feature names of its own, and the rows here have mlx-lm's.
    names = {} if request.hf_dataset is not None else request.features
    model = None if request.model is None else str(models.locate(request.model) or request.model)
    findings = Collector()
    survey = Survey(files, near=request.near_duplicates, names=names)
    scans: dict[str, FileScan] = {}
    for name, path in files.items():
        scans[name] = scan_file(path, findings, survey.observer(name, findings), watch, request.max_rows, names)
    if data.is_dir():
        # A missing valid.jsonl is no error here: training can go without. One that is there has to fit.
        whole = check_splits(
            scans,
            data,
            batch_size=request.batch_size,
            validate="valid" in scans,
            test=False,
            mask_prompt=request.mask_prompt,
            assistant_only_loss=request.assistant_only_loss,
        )
        for path, severity, problem in whole:
            findings.add(path, None, problem, severity)
    for scan in scans.values():
        if scan.more:
            text = f"has more than the {scan.lines:,} lines that were looked at; leave max_rows out to look at all"
            findings.add(scan.path, None, Problem("first-rows", text), "info")
    for warning in warnings:
        findings.add(data, None, Problem("splits-not-read", warning), "warning")
    duplicates = survey.duplicates(findings, watch)
    survey.add_odd_rows(findings)
    report = _count_tokens(request, names, model, scans, survey, findings, watch) if model is not None else None
    found = findings.sorted()
    shown = found[: request.max_findings]
    return InspectReport(
        summary=_summary(scans, findings, report),
        ok=not findings.count("error"),
        data=str(data),
        splits={name: survey.summary(name, scan) for name, scan in scans.items()},
        duplicates=duplicates,
        languages=survey.languages(),
        findings=shown,
        showing=f"showing {len(shown)} of {len(found)} findings",
        tokens=report,
        next_step=_next_step(findings, report, request),
        seconds=0,
    )


def _files(data: Path) -> dict[str, Path]:
    """Split name → file. Raises DataError when there is none."""
    if data.is_file():
        if data.suffix not in (".jsonl", ".ndjson"):
            raise DataError(
                f"data {data} is not a .jsonl file; turn it into one with prepare_dataset(source={str(data)!r}, output=...)"
            )
        return {data.stem if data.stem in SPLITS else "train": data}
    require_folder(data)
    files = {name: data / f"{name}.jsonl" for name in SPLITS if (data / f"{name}.jsonl").exists()}
    if not files:
        names = ", ".join(sorted(entry.name for entry in data.iterdir())[:5]) or "nothing"
        raise DataError(
            f"{data} has no train.jsonl, valid.jsonl or test.jsonl (it holds {names}); "
            f"make them with prepare_dataset(source={str(data)!r}, output=...), or give the path of one .jsonl file"
        )
    return files


def _count_tokens(
    request: InspectRequest,
    names: dict[str, str],
    model: str,
    scans: dict[str, FileScan],
    survey: Survey,
    findings: Collector,
    watch: Watch,
) -> TokenReport:
    files = [
        tokens.lines_to_measure(
            scan.path,
            name,
            scan.lines,
            request.max_token_rows,
            [line for _, line in heapq.nlargest(_LONGEST, survey.longest(name))],
        )
        for name, scan in scans.items()
        if scan.formats
    ]
    answer = tokens.measure(
        TokenRequest(
            model=model,
            files=files,
            max_seq_length=request.max_seq_length,
            batch_size=request.batch_size,
            mask_prompt=request.mask_prompt,
            names=names,
            assistant_only_loss=request.assistant_only_loss,
        ),
        watch,
    )
    findings.extend(answer.findings)
    for file in files:
        if file.every > 1:
            text = (
                f"tokens were counted of one in {file.every:,} of {file.lines:,} lines and of the "
                f"{len(file.also):,} longest; a larger max_token_rows counts more"
            )
            findings.add(file.path, None, Problem("sampled", text), "info")
    return answer.report


def _summary(scans: dict[str, FileScan], findings: Collector, report: TokenReport | None) -> str:
    rows = ", ".join(f"{name} {scan.lines:,}" for name, scan in scans.items())
    counts = [f"{findings.count(level)} kinds of {level}s" for level in ("error", "warning")]
    text = f"Rows: {rows}. Found {' and '.join(counts)}."
    if report is not None and "train" in report.splits:
        train = report.splits["train"]
        measured = "rows" if train.rows_measured == train.rows else f"{train.rows_measured:,} measured rows"
        text += (
            f" Tokens a row: median {train.p50}, most {train.max}; {train.rows_cut:.1%} of {measured} are cut at "
            f"max_seq_length={report.max_seq_length}; padding {train.padding_stock:.0%}, "
            f"{train.padding_bucketed:.0%} in batches of like length."
        )
    return text


def _next_step(findings: Collector, report: TokenReport | None, request: InspectRequest) -> str:
    if findings.count("error"):
        hf_dataset = "" if request.hf_dataset is None else "hf_dataset=<the same>, "
        return (
            "correct the errors (file and line are given), or write a clean copy with prepare_dataset("
            f"source={request.data!r}, {hf_dataset}output=<new folder>), which drops bad, repeated and leaked rows"
        )
    if report is None:
        return "call again with model=... to see token lengths and one row as the model sees it"
    return "train with start_lora_training, with the same max_seq_length, batch_size and masking"
