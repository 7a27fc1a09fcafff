"""lm-evaluation-harness tasks on the model at hand, through mlx-lm's own adapter to it (``mlx_lm.evaluate.MLXLM``)."""

from __future__ import annotations

import contextlib
import importlib
import sys
from pathlib import Path
from typing import Any

import mlx.nn as nn
import numpy as np

from mcp_server.errors import DataError, PlatformError
from mcp_server.evaluation.compare import compare_scores
from mcp_server.evaluation.options import BenchmarkOptions
from mcp_server.evaluation.report import TaskScore, judge
from mcp_server.platform.interpreter import install

Scores = dict[tuple[str, str], np.ndarray]
"""(task, metric) → score of each example, (examples,)."""


class Harness:
    """The tasks, run on one model after the other."""

    def __init__(self, options: BenchmarkOptions, tokenizer: Any) -> None:
        """Raises PlatformError when lm-eval is not installed."""
        try:
            tasks: Any = importlib.import_module("lm_eval.tasks")
            from mlx_lm.evaluate import MLXLM
        except ImportError as error:
            raise PlatformError(
                f"tasks need lm-evaluation-harness and {sys.executable} can't import it ({error}); install it: "
                f"{install('lm-eval>=0.4.9')}"
            ) from error
        self._options = options
        files = [Path(task) for task in options.tasks or [] if task.endswith((".yaml", ".yml"))]
        own = [str(folder) for folder in sorted({file.parent for file in files})]
        self._manager: Any = tasks.TaskManager(include_path=own or None)
        self._names = [_task_name(Path(task)) if Path(task) in files else task for task in options.tasks or []]
        unknown = [name for name in self._names if name not in self._manager.all_tasks]
        if unknown:
            raise DataError(f"lm-eval has no task {unknown[0]!r}; `lm-eval ls tasks` lists the names")
        self._lm: Any = _with_model(MLXLM, tokenizer, options)
        self.lower_is_better: set[tuple[str, str]] = set()

    def run(self, model: nn.Module) -> Scores:
        """Every example's scores. Raises DataError when a task can't be run."""
        simple_evaluate: Any = importlib.import_module("lm_eval").simple_evaluate
        self._lm._model = model
        try:
            with contextlib.redirect_stdout(sys.stderr):
                found: Any = simple_evaluate(
                    model=self._lm,
                    tasks=self._names,
                    task_manager=self._manager,
                    limit=self._options.task_limit,
                    num_fewshot=self._options.num_fewshot,
                    apply_chat_template=self._lm.use_chat_template,
                    bootstrap_iters=0,  # the intervals are ours, paired
                    random_seed=self._options.seed,
                    numpy_random_seed=self._options.seed,
                    torch_random_seed=self._options.seed,
                    fewshot_random_seed=self._options.seed,
                )
        except Exception as error:
            # Unknown tasks, data that can't be downloaded, prompts that fail: all end the tasks, and name themselves.
            text = " ".join(str(error).split())[:300]
            raise DataError(
                f"the tasks {', '.join(self._names)} could not be run: {type(error).__name__}: {text}; "
                "most tasks download their data from the Hub"
            ) from error
        self.lower_is_better = {
            (task, metric)
            for task, metrics in found["higher_is_better"].items()
            for metric, higher in metrics.items()
            if higher is False
        }
        return _scores(found["samples"])


def _with_model(kind: Any, tokenizer: Any, options: BenchmarkOptions) -> Any:
    """An MLXLM of a model that is already loaded; its own constructor would load another."""

    class Loaded(kind):
        def __init__(self) -> None:
            super(kind, self).__init__()  # past MLXLM's, which loads from a path and takes no adapter
            self._model = None
            self.tokenizer = tokenizer
            self._max_tokens = options.max_tokens
            self._batch_size = options.batch_size
            self.use_chat_template = tokenizer.chat_template is not None
            self._sampler = None

    return Loaded()


def _task_name(file: Path) -> str:
    """The name a task's YAML file gives itself; its ``!function`` tags are not run for this."""
    for line in file.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        if key in ("task", "group"):
            return value.split("#")[0].strip().strip("'\"")
    raise DataError(f"{file} has no line 'task: NAME', so it is no task of lm-evaluation-harness; add one")


def _scores(samples: dict[str, list[dict[str, Any]]]) -> Scores:
    """Scores that are one number an example; others (a corpus's perplexity) can't be paired."""
    collected: dict[tuple[str, str], list[float]] = {}
    for task, examples in samples.items():
        for example in examples:
            label = "" if example["filter"] == "none" else f",{example['filter']}"
            for metric in example["metrics"]:
                value = example[metric]
                if isinstance(value, int | float | np.number):
                    collected.setdefault((task, metric + label), []).append(float(value))
    return {key: np.array(values) for key, values in collected.items()}


def compare_tasks(
    base: Scores, adapter: Scores | None, lower_is_better: set[tuple[str, str]], seed: int
) -> list[TaskScore]:
    """Base and adapter on the same examples. ``lower_is_better``: (task, metric) of errors and the like."""
    lines: list[TaskScore] = []
    for (task, metric), values in base.items():
        line = TaskScore(task=task, metric=metric, examples=len(values), base=round(float(values.mean()), 4))
        if adapter is not None:
            other = adapter[task, metric]
            line.adapter = round(float(other.mean()), 4)
            found = compare_scores(values, other, seed)
            line.interval_95 = found.interval_95
            line.verdict = judge(found.interval_95, lower_is_better=(task, metric.split(",")[0]) in lower_is_better)
        lines.append(line)
    return lines
