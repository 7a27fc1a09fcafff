"""The benchmark worker: base and adapters on the same held-out rows, paired."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.nn as nn
import numpy as np
from mlx_lm.generate import batch_generate

from mcp_server.datasets.secrets import redact_value
from mcp_server.errors import DataError, ModelError, UserError, brief
from mcp_server.evaluation import compare, metrics, report, words
from mcp_server.evaluation.adapters import CONFIG
from mcp_server.evaluation.compare import Outcome
from mcp_server.evaluation.options import BenchmarkOptions
from mcp_server.jobs.files import read_json, write_atomic
from mcp_server.models import folder as models
from mcp_server.platform.interpreter import install
from mcp_server.workers import general_text, job
from mcp_server.workers.harness import Harness, compare_tasks
from mcp_server.workers.heldout import HeldOut
from mcp_server.workers.loading import load_model
from mcp_server.workers.speed import Timer
from mcp_server.workers.swapping import Swapper

_ANSWERED_AT_ONCE = 32  # mlx-lm's completion_batch_size; between two of these a stop is heard
EXAMPLES = "examples.jsonl"


class Bench:
    """What every model is measured on."""

    def __init__(self, worker: job.WorkerJob, options: BenchmarkOptions) -> None:
        assert options.model is not None
        self.worker = worker
        self.options = options
        self._own = metrics.own_metric(options.metric) if options.metric else None
        self._schema = metrics.json_schema(Path(options.json_schema)) if options.json_schema else None
        worker.phase("loading model", model=options.model)
        model, self.tokenizer = load_model(options.model)
        self.swapper = Swapper(model)
        self.harness = Harness(options, self.tokenizer) if options.tasks else None
        self.window = context_window(options.model)
        worker.phase("checking rows", data=options.data)
        self.heldout = HeldOut(worker, options, self.tokenizer, self.window)
        self.questions = self.heldout.questions(options.num_prompts)
        self.notes = self.heldout.notes
        self.scores = self._choose_scores()
        self.general = (
            general_text.windows(Path(options.forgetting_data), self.tokenizer, self.window)
            if options.forgetting_data
            else None
        )
        self.tokens = np.zeros(len(self.heldout))

    def _choose_scores(self) -> dict[str, metrics.Score]:
        """The scores that these references allow, by name."""
        references = [question.reference for question in self.questions]
        if not references:
            if self.options.num_prompts:
                self.notes.append("no row ends with an assistant's text, so no answers were compared")
            return {}
        chosen: dict[str, metrics.Score] = {
            "exact_match": metrics.exact_match,
            "contains": metrics.contains,
            "token_f1": metrics.token_f1,
        }
        rouge = metrics.rouge_l()
        if rouge is None:
            self.notes.append(f"ROUGE-L was left out: {install('rouge-score')}")
        elif any(rouge(reference, reference) for reference in references):
            chosen["rouge_l"] = rouge  # it knows the letters a-z and digits alone
        if all(map(metrics.is_record, references)):
            chosen["valid_json"] = metrics.valid_json
        if self._schema is not None:
            chosen["json_schema"] = self._schema
        if self._own is not None:
            chosen["own_metric"] = self._own
        return chosen

    def outcome(self, adapter: str | None) -> Outcome:
        """Losses, answers and scores with ``adapter``. Raises ModelError when it can't be used."""
        name = Path(adapter).name if adapter else "the base"
        self.worker.phase(f"measuring {name}", **({"adapter_path": adapter} if adapter else {}))
        model = self.swapper.use(adapter)
        sums, self.tokens = self.heldout.losses(model, name)
        if not np.isfinite(sums).all():
            raise ModelError(
                f"the loss of {adapter or self.options.model} is {sums.sum()}: its weights hold NaN or infinity, or "
                "overflow; choose another checkpoint, or train or convert it again"
            )
        answers = self._answers(model, name)
        given = [(answer, question.reference) for answer, question in zip(answers, self.questions, strict=True)]
        scores = {
            title: np.array([score(answer, reference) for answer, reference in given])
            for title, score in self.scores.items()
        }
        return Outcome(adapter, sums, answers, scores)

    def _answers(self, model: nn.Module, name: str) -> list[str]:
        """Greedy answers to the questions; of a thinking model what follows the thinking."""
        answers: list[str] = []
        for start in range(0, len(self.questions), _ANSWERED_AT_ONCE):
            self.worker.check_stop()
            asked = self.questions[start : start + _ANSWERED_AT_ONCE]
            room = [self._room(len(question.tokens)) for question in asked]
            response = batch_generate(model, self.tokenizer, [question.tokens for question in asked], max_tokens=room)
            answers += [self._after_thinking(text) for text in response.texts]
            total = len(self.questions)
            self.worker.events.write("progress", name=f"answers of {name}", step=len(answers), total=total)
        return answers

    def _room(self, prompt: int) -> int:
        """Tokens that an answer to a prompt of so many tokens may have."""
        return min(self.options.max_tokens, (self.window or prompt + self.options.max_tokens) - prompt)

    def _after_thinking(self, text: str) -> str:
        if self.tokenizer.has_thinking:
            text = text.rpartition(self.tokenizer.think_end)[2]
        return text.strip()


def benchmark(worker: job.WorkerJob) -> dict[str, Any]:
    """Measure as the spec says; the report for ``outcome.json``."""
    options = BenchmarkOptions.model_validate(worker.spec.options)
    bench = Bench(worker, options)
    base = bench.outcome(None)
    outcomes = [base, *_adapters(bench, options.adapters or [])]
    best = min(outcomes[1:], key=lambda outcome: outcome.sums.sum(), default=None)
    result = report.BenchmarkReport(
        summary="",
        model=str(options.model),
        adapter_path=best.adapter if best else None,
        data=str(options.data),
        split=options.split,
        rows=len(bench.heldout),
        tokens=int(bench.tokens.sum()),
        base=base.measured(bench.tokens),
        adapter=best.measured(bench.tokens) if best else None,
        comparison=compare.compare(base, best, bench.tokens, options.seed) if best else None,
        examples=_write_examples(bench, outcomes),
        samples=_samples(bench, base, best),
    )
    if len(outcomes) > 2:
        result.ranking, result.keep = compare.rank(outcomes, bench.tokens, options.seed)
    _look_closer(bench, result, best)
    result.notes = bench.notes
    result.summary = words.summarize(
        result.rows,
        result.base,
        result.adapter,
        result.comparison,
        result.forgetting,
        result.keep,
        _called(outcomes, best),
        options.split,
    )
    return result.model_dump(mode="json", exclude_none=True)


def _adapters(bench: Bench, folders: list[str]) -> list[Outcome]:
    """The adapters that can be measured. One that can't is noted, or raised when it is the only one."""
    found: list[Outcome] = []
    for folder in folders:
        try:
            found.append(bench.outcome(folder))
        except ModelError as error:
            if len(folders) == 1:
                raise
            bench.notes.append(f"left out: {error}")
        _note_other_model(bench, folder)
    if folders and not found:
        raise ModelError("none of the adapters can be used: " + "; ".join(bench.notes))
    if len(found) > 2:
        bench.notes.append(
            f"the first of {len(found)} was chosen on these rows, which flatters it; confirm it on rows not used to choose"
        )
    return found


def _note_other_model(bench: Bench, folder: str) -> None:
    """An adapter fits any model of the same shape; it is good for its own alone."""
    named, model = (read_json(Path(folder) / CONFIG) or {}).get("model"), str(bench.options.model)
    if not isinstance(named, str) or Path(named).name == Path(model).name:
        return
    in_cache = f"models--{named.replace('/', '--')}" in model  # a Hub id, now found as a folder of the cache
    if not in_cache and Path(named).resolve() != Path(model).resolve():
        bench.notes.append(f"{folder} was trained on {named}, not on {model}")


def _look_closer(bench: Bench, result: report.BenchmarkReport, best: Outcome | None) -> None:
    """What is measured of the base and the best adapter alone: general text, tasks, speed."""
    options = bench.options
    contenders: list[str | None] = [None, best.adapter] if best else [None]
    if bench.general is not None:
        bench.worker.phase("measuring general text")
        measured = [
            general_text.losses(bench.swapper.use(adapter), bench.general, options.batch_size) for adapter in contenders
        ]
        (base, tokens), (adapter, _) = measured[0], measured[-1]
        if best is not None:
            result.forgetting = compare.forgetting(base, adapter, tokens, options.seed)
        else:
            value = compare.perplexity(float(base.sum() / tokens.sum()))
            bench.notes.append(f"perplexity of the base on {options.forgetting_data}: {value}")
    if bench.harness is not None:
        bench.worker.phase("running tasks", tasks=options.tasks)
        try:
            scores = [bench.harness.run(bench.swapper.use(adapter)) for adapter in contenders]
            after = scores[1] if best else None
            result.tasks = compare_tasks(scores[0], after, bench.harness.lower_is_better, options.seed)
        except DataError as error:
            bench.notes.append(str(error))  # what was measured before is worth keeping
    if options.speed_trials:
        bench.worker.phase("measuring speed")
        timer = Timer(options, bench.tokenizer, bench.window)
        speeds = timer.measure(bench.worker, bench.swapper, contenders)
        result.base.speed = speeds[0]
        if result.adapter is not None:
            result.adapter.speed = speeds[1]


def _called(outcomes: list[Outcome], best: Outcome | None) -> str:
    if best is None or len(outcomes) == 2:
        return "the adapter"
    return f"adapter {best.name} (first of {len(outcomes) - 1})"


def _samples(bench: Bench, base: Outcome, best: Outcome | None) -> list[report.Sample]:
    most = report.SHOWN_CHARACTERS
    return [
        report.Sample(
            prompt=brief(question.text, most),
            reference=brief(question.reference, most),
            base=brief(base.answers[index], most),
            adapter=brief(best.answers[index], most) if best else None,
        )
        for index, question in enumerate(bench.questions[: bench.options.num_samples])
    ]


def _write_examples(bench: Bench, outcomes: list[Outcome]) -> str:
    """Every row with its loss, answers and scores, in the job's folder; the file."""
    keys = [outcome.adapter or "base" for outcome in outcomes]
    asked = {question.row: index for index, question in enumerate(bench.questions)}
    lines: list[str] = []
    for row, tokens in enumerate(bench.tokens.tolist()):
        losses = {key: round(float(outcome.sums[row]) / tokens, 6) for key, outcome in zip(keys, outcomes, strict=True)}
        line: dict[str, Any] = {"row": row + 1, "tokens": int(tokens), "loss": losses}
        index = asked.get(row)
        if index is not None:
            question = bench.questions[index]
            line |= {"prompt": question.text, "reference": question.reference}
            line["answers"] = {key: outcome.answers[index] for key, outcome in zip(keys, outcomes, strict=True)}
            line["scores"] = {
                key: {name: float(values[index]) for name, values in outcome.scores.items()}
                for key, outcome in zip(keys, outcomes, strict=True)
            }
        lines.append(json.dumps(redact_value(line), ensure_ascii=False))
    file = bench.worker.folder.path / EXAMPLES
    try:
        write_atomic(file, ("\n".join(lines) + "\n").encode())
    except OSError as error:
        raise UserError(f"{file} could not be written: {error}; free disk space and measure again") from error
    return str(file)


def context_window(model: str) -> int | None:
    """Tokens that the model's positions reach, from its config.json; None where it does not say."""
    try:
        folder = models.locate(model)
    except ModelError:
        return None  # loaded from somewhere that only the Hub's library knows
    if folder is None:
        return None
    config = models.read_config(folder)
    text = {**config, **(config.get("text_config") or {})}
    window = next((text[name] for name in ("max_position_embeddings", "n_positions", "n_ctx") if name in text), None)
    scaling = text.get("rope_scaling")
    if not isinstance(window, int) or not isinstance(scaling, dict):
        return window if isinstance(window, int) else None
    # Some name the window before the stretching, some the one after: the longer is the model's.
    before, factor = scaling.get("original_max_position_embeddings") or window, scaling.get("factor")
    return max(window, int(before * factor)) if isinstance(factor, int | float) else window


if __name__ == "__main__":
    job.run(benchmark)
