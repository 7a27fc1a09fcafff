"""Tools that look at data and make it ready."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from mcp.server.mcpserver import Context

from mcp_server.datasets import inspect, prepare
from mcp_server.datasets.preparation import PrepareReport, PrepareRequest
from mcp_server.datasets.report import InspectReport, InspectRequest
from mcp_server.datasets.watch import Watch
from mcp_server.tools.tool import make_tool

Result = TypeVar("Result")


async def inspect_dataset(request: InspectRequest, context: Context[Any, Any]) -> InspectReport:
    """Check a data set before training: formats, roles, turns, every defect with file and line, duplicates, near-duplicates,
    leaks between train, valid and test, languages, what looks like a secret (named, never shown).

    With a model also token lengths by its own tokenizer and chat template: histogram, share cut at max_seq_length, padding at
    batch_size, prompts that leave no room for the answer, and one row exactly as the model sees it with the trained part
    apart. Findings are grouped by kind: count, first lines, what to do.

    It changes nothing and trains nothing. It reads .jsonl and, as training does, data sets on the Hub (data="org/name", or
    hf_dataset); for JSON, CSV, Parquet or text call prepare_dataset first, which also writes a clean copy of faulty data. A
    million rows take a minute or two; give the same max_seq_length, batch_size, mask_prompt or assistant_only_loss as
    start_lora_training will get."""
    return await _in_thread(lambda watch: inspect.inspect_dataset(request, watch), context)


async def prepare_dataset(request: PrepareRequest, context: Context[Any, Any]) -> PrepareReport:
    """Write a new folder with train.jsonl, valid.jsonl and test.jsonl, as mlx-lm reads them, from JSONL, JSON, CSV, TSV, Parquet,
    .txt or .md, a file or a folder of them, or from a data set on the Hub.

    Knows OpenAI messages, ShareGPT conversations, Alpaca, prompt/response and like column names, plain text; for other names
    give mapping. Drops rows that can't be trained on, repeated rows and, where asked, rows of the wrong length, and says which,
    why and where. Files and splits named valid (validation, val, dev) or test keep their rows, and rows like theirs are dropped
    from train; what is missing is drawn by seed, near-duplicates in one split, so that nothing leaks into the test.

    The source is never changed and output must be a new folder; it appears whole or not at all. It does not invent, translate or
    correct text, and removes no secrets: look at the result with inspect_dataset."""
    return await _in_thread(lambda watch: prepare.prepare_dataset(request, watch), context)


async def _in_thread(service: Callable[[Watch], Result], context: Context[Any, Any]) -> Result:
    """Run ``service`` in a thread with progress; when the call is cancelled the thread ends at its next tick."""

    def report(done: float, total: float | None, what: str) -> None:
        anyio.from_thread.run(context.report_progress, done, total, what)

    watch = Watch(report)
    try:
        return await anyio.to_thread.run_sync(service, watch, abandon_on_cancel=True)
    except anyio.get_cancelled_exc_class():
        watch.cancel()
        raise


TOOLS = [
    make_tool(inspect_dataset, title="Inspect data set", read_only=True, idempotent=True, open_world=True),
    make_tool(prepare_dataset, title="Prepare data set", read_only=False, open_world=True),
]
