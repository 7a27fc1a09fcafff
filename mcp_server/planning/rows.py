"""How many rows a data set has and how long they are in tokens, from a sample and the longest lines.

Memory depends on the longest row that reaches the model and time on the usual ones. The tokens are counted by the model's
own tokenizer.json in a short process of the interpreter that has ``tokenizers``; without one they are guessed from the
characters, and said to be.
"""

from __future__ import annotations

import heapq
import json
import random
import subprocess
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field

from mcp_server.datasets.features import NAME_THEM
from mcp_server.datasets.lengths import expected_padding
from mcp_server.datasets.rows import check_line, renamed
from mcp_server.errors import DataError, PlatformError
from mcp_server.platform import interpreter
from mcp_server.training.options import TrainingOptions

_LONGEST, _SAMPLE, _SEED = 24, 200, 0
_BYTES_PER_TOKEN = 3.5  # English with a common tokenizer has about 4; less is the safe side
_MESSAGE_TOKENS = 5  # ChatML's <|im_start|>role\n … <|im_end|>\n
_COUNT = """
import json, sys
from tokenizers import Tokenizer
asked = json.load(sys.stdin)
tokenizer = Tokenizer.from_file(asked["tokenizer"])
tokenizer.no_truncation()
print(json.dumps([len(e.ids) for e in tokenizer.encode_batch(asked["texts"], add_special_tokens=False)]))
"""


class RowLengths(BaseModel):
    """Rows of train.jsonl and their lengths in tokens, template included."""

    rows: int
    valid_rows: int
    test_rows: int
    format: str
    longest: int
    p50: int
    p90: int
    p99: int
    mean: float
    counted_by: Literal["the model's tokenizer", "characters"]
    data_bytes: int = Field(exclude=True, default=0)
    sample: list[int] = Field(exclude=True, default_factory=list)  # lengths of rows taken at random

    def padding(self, options: TrainingOptions) -> tuple[float, float]:
        """Padding as a share of the batches of ``options``, and the mean number of tokens a row, padded."""
        sample = self.sample or [round(self.mean)]
        return expected_padding(
            sample, max(self.rows, 1), options.batch_size, options.max_seq_length, bucketed=options.buckets
        )


def read(folder: Path, model: Path | None, names: dict[str, str] | None = None) -> RowLengths:
    """Measure the data in ``folder``; ``names``: the data's own field name → mlx-lm's.

    Raises DataError when there is no train.jsonl, nothing in it, or in its first row no format that mlx-lm knows.
    """
    train = folder / "train.jsonl"
    if not train.is_file():
        raise DataError(f"{folder} has no train.jsonl; give the folder with the data, or make it with prepare_dataset")
    longest: list[tuple[int, int, bytes]] = []
    sample: list[bytes] = []
    rows = size = 0
    form = ""
    choose = random.Random(_SEED)
    with train.open("rb") as lines:
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            if not rows:
                form = _format(line, train, number + 1, names)
            rows += 1
            size += len(line)
            if len(longest) < _LONGEST:
                heapq.heappush(longest, (len(line), number, line))
            elif len(line) > longest[0][0]:
                heapq.heapreplace(longest, (len(line), number, line))
            # A reservoir: every row has the same chance, whatever their number.
            if len(sample) < _SAMPLE:
                sample.append(line)
            elif (place := choose.randrange(rows)) < _SAMPLE:
                sample[place] = line
    if rows == 0:
        raise DataError(f"{train} is empty; put examples there, one JSON object a line")
    texts = [_text(line, names) for line in [*sample, *(line for _, _, line in longest)]]
    counted, by = _count(texts, model)
    usual = sorted(counted[: len(sample)])
    return RowLengths(
        rows=rows,
        valid_rows=_rows(folder / "valid.jsonl"),
        test_rows=_rows(folder / "test.jsonl"),
        format=form,
        longest=max(counted),
        p50=_percentile(usual, 50),
        p90=_percentile(usual, 90),
        p99=_percentile(usual, 99),
        mean=round(sum(usual) / len(usual), 1),
        counted_by=by,
        data_bytes=size,
        sample=usual,
    )


def _format(line: bytes, file: Path, number: int, names: dict[str, str] | None) -> str:
    """The format of the first row, which mlx-lm takes for that of all."""
    found, problems = check_line(line.decode("utf-8", "replace"), names=names)
    if found is None:
        remedy = NAME_THEM if problems[0].code == "unknown-format" else "correct it"
        raise DataError(
            f"{file}:{number} {problems[0].message}; {remedy}, or write a copy that mlx-lm reads with "
            f"prepare_dataset(source={str(file.parent)!r}, output=<new folder>)"
        )
    return found


def _percentile(values: list[int], percent: int) -> int:
    return values[min(len(values) - 1, len(values) * percent // 100)]


def _rows(file: Path) -> int:
    if not file.is_file():
        return 0
    with file.open("rb") as lines:
        return sum(1 for line in lines if line.strip())


def _parse(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(line: bytes, names: dict[str, str] | None) -> tuple[str, int]:
    """The text of a row and the tokens its template adds."""
    row: dict[str, Any] = renamed(_parse(line), names or {})
    if isinstance(row.get("text"), str) and "messages" not in row:
        return row["text"], 1
    if "prompt" in row and "completion" in row:
        return f"{row['prompt']}\n{row['completion']}", 2 * _MESSAGE_TOKENS + 2
    messages = row.get("messages")
    if not isinstance(messages, list):
        return line.decode("utf-8", "replace"), 0
    parts = [json.dumps(row["tools"])] if row.get("tools") else []
    for message in messages:
        if isinstance(message, dict):
            content = message.get("content")
            parts.append(content if isinstance(content, str) else json.dumps(content))
            if message.get("tool_calls"):
                parts.append(json.dumps(message["tool_calls"]))
    return "\n".join(parts), _MESSAGE_TOKENS * len(messages) + 3


def _count(
    texts: list[tuple[str, int]], model: Path | None
) -> tuple[list[int], Literal["the model's tokenizer", "characters"]]:
    tokenizer = model / "tokenizer.json" if model is not None else None
    if tokenizer is not None and tokenizer.is_file():
        asked = json.dumps({"tokenizer": str(tokenizer), "texts": [text for text, _ in texts]})
        try:
            done = subprocess.run(
                [str(interpreter.require()), "-c", _COUNT],
                input=asked,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            counts: list[int] = json.loads(done.stdout)
            return [count + extra for count, (_, extra) in zip(counts, texts, strict=True)], "the model's tokenizer"
        except (PlatformError, OSError, subprocess.SubprocessError, ValueError):
            pass  # no such library, or a tokenizer it can't read: the guess below says that it is one
    # "replace": half an emoji is an error of the data, which is said by who checks rows.
    return [round(len(text.encode(errors="replace")) / _BYTES_PER_TOKEN) + extra for text, extra in texts], "characters"
