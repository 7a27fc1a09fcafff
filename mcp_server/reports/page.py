"""The page of one job, section by section. The report and the local page show the same."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from mcp_server import __version__
from mcp_server.datasets.secrets import redact_value
from mcp_server.evaluation.report import METRICS, BenchmarkReport, Measured, Spread
from mcp_server.evaluation.words import figure, spread
from mcp_server.reports.chart import Line, Mark, chart
from mcp_server.reports.facts import JobFacts, plain
from mcp_server.reports.markup import Html, element, escape, join, table
from mcp_server.reports.style import POLICY, STYLE
from mcp_server.reports.words import badge, bytes_text, clock, summary
from mcp_server.training.diagnose import KNOWN
from mcp_server.training.history import History, smooth
from mcp_server.training.log import duration
from mcp_server.training.options import TrainingOptions

_NOISY = 150  # points above which the running mean is drawn over the losses
_SHOWN_ALERTS = 50


def document(title: str, body: Html, *, policy: str | None = POLICY, script: Html | None = None) -> str:
    """A whole page. ``policy`` None: the server says it in a header."""
    meta = element_void("meta", http_equiv="Content-Security-Policy", content=policy) if policy else ""
    head = (
        f'<meta charset="utf-8">{meta}<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title><style>{STYLE}</style>'
    )
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}{script or ""}</body></html>\n'


def element_void(name: str, **attributes: Any) -> Html:
    """An element without content."""
    return Html(element(name, **attributes).removesuffix(f"</{name}>"))


def report(facts: JobFacts) -> str:
    """``report.html``: opens without a server, runs no script, loads nothing."""
    made = f"made by mlx-training {__version__} on {clock(time.time())} from {facts.view.job_id}'s own files"
    return document(facts.view.job_id, join([job(facts), element("p", made, style="muted small")]))


def job(facts: JobFacts) -> Html:
    """Everything about one job."""
    return join(
        [
            _head(facts),
            _cards(facts),
            _benchmark(facts),
            _curves(facts),
            _alerts(facts),
            _samples(facts),
            _data(facts),
            _configuration(facts),
            _repeat(facts),
        ]
    )


def _head(facts: JobFacts) -> Html:
    view = facts.view
    title = element("h1", Path(view.adapter_path).name if view.adapter_path else view.job_id, " ", badge(view.status))
    times = f"{view.job_id} · begun {clock(facts.view.started or view.created)}"
    if facts.seconds is not None:
        times += f" · took {duration(facts.seconds)}"
    return join([title, element("p", times, style="muted small"), element("p", summary(facts))])


def _cards(facts: JobFacts) -> Html:
    history, result, view = facts.history, facts.result, facts.view
    cards: list[tuple[str, Any, str | None]] = []
    if view.status == "working" and view.step is not None and view.total:
        left = f"about {duration(view.seconds_left)} left" if view.seconds_left is not None else None
        cards.append(("step", f"{view.step:,} of {view.total:,}", left))
    if history.train:
        first, last = history.train[0], history.train[-1]
        cards.append(("training loss", f"{last[1]:.4g}", f"{first[1]:.4g} at step {first[0]:,}"))
    if facts.best is not None:
        step, loss = facts.best
        start = f", {history.val[0][1]:.4g} before training" if history.val and history.val[0][0] == 0 else ""
        cards.append(("best validation loss", f"{loss:.4g}", f"at step {step:,}{start}"))
    if facts.benchmarks and (measured := facts.benchmarks[0].report) is not None and measured.comparison is not None:
        verdict, difference = measured.comparison.verdict, measured.comparison.loss_difference
        which = f"{_measured_adapter(measured)}: " if measured.ranking else ""
        own = facts.own_line
        if own is not None and own.verdict is not None and own.loss_difference is not None:
            verdict, difference, which = own.verdict, own.loss_difference, ""
        where = f"{measured.rows} rows of {measured.split}.jsonl"
        cards.append(("benchmark", badge(verdict), f"{which}loss {difference:+.4g} on {where}"))
    speeds = sorted(value for _, value in history.speed[1:] or history.speed)
    if speeds:
        cards.append(("speed", f"{speeds[len(speeds) // 2]:,.0f} tokens/s", "median of the reports"))
    peak = max((value for _, value in history.peak), default=None)
    if peak is not None:
        cards.append(("peak memory", bytes_text(peak), "MLX, of this process"))
    if result.get("bytes") and result.get("bits_per_weight"):
        cards.append(("size", bytes_text(result["bytes"]), f"{result['bits_per_weight']} bits per weight"))
    shown = (
        element("div", element("dt", name), element("dd", value, element("small", note) if note else ""))
        for name, value, note in cards
    )
    return element("dl", *shown, style="cards") if cards else Html("")


def _curves(facts: JobFacts) -> Html:
    history = facts.history
    if facts.spec.kind != "train":
        return Html("")
    parts: list[Any] = [element("h2", "Curves")]
    if history.sampled:
        parts.append(
            element("p", "The log is long: the curves are drawn from evenly spaced samples of it.", style="muted")
        )
    parts.append(chart(loss_lines(history), label="loss, nats per token", log=True, marks=_marks(facts)))
    if history.not_finite:
        parts.append(element("p", f"The loss was not finite at step {history.not_finite[0]:,}.", style="bad error"))
    if history.learning_rate:
        rate = [Line("learning rate", history.learning_rate, "rate")]
        parts.append(chart(rate, label="learning rate", height=130, zero=True, form=lambda value: f"{value:.3g}"))
    scale, unit = (1e9, "GB") if any(value >= 1e9 for _, value in history.peak) else (1e6, "MB")
    memory = [
        Line(name, [(step, value / scale) for step, value in points], style)
        for name, points, style in (
            ("active", history.active, "train"),
            ("cache", history.cache, "third"),
            ("peak so far", history.peak, "val"),
        )
    ]
    if history.active:
        parts.append(chart(memory, label=f"MLX memory, {unit}", height=190, zero=True))
    if history.speed:
        speed = [Line("tokens/s", history.speed[1:] or history.speed, "train")]
        parts.append(chart(speed, label="speed, tokens per second", height=150, form=lambda value: f"{value:,.6g}"))
    return join(parts)


def loss_lines(history: History) -> list[Line]:
    """Training and validation; a noisy training loss under its running mean."""
    noisy = len(history.train) > _NOISY
    lines = [Line("each report", history.train, "faint")] if noisy else []
    mean = smooth(history.train) if noisy else history.train
    return [
        *lines,
        Line("training" + (", running mean" if noisy else ""), mean, "train"),
        Line("validation", history.val, "val"),
    ]


def _marks(facts: JobFacts) -> list[Mark]:
    marks = [Mark(alert.step, alert.message, "alert") for alert in facts.history.alerts if alert.step is not None]
    if facts.best is not None:
        step, loss = facts.best
        marks.append(Mark(step, f"best {loss:.4g}", "best", value=loss))
    return marks


def _alerts(facts: JobFacts) -> Html:
    alerts = facts.history.alerts
    if not alerts:
        return Html("")
    rows = [
        (
            "" if alert.step is None else f"{alert.step:,}",
            element("span", alert.kind, style="error" if alert.level == "error" else "warning"),
            alert.message,
            element("span", KNOWN[alert.kind][1] if alert.kind in KNOWN else "", style="muted"),
        )
        for alert in alerts[-_SHOWN_ALERTS:]
    ]
    title = "Alerts" if len(alerts) <= _SHOWN_ALERTS else f"Alerts (the last {_SHOWN_ALERTS} of {len(alerts):,})"
    return join([element("h2", title), table(rows, head=("step", "kind", "what was seen", "what to do"))])


def _benchmark(facts: JobFacts) -> Html:
    shown = [(benchmark, benchmark.report) for benchmark in facts.benchmarks if benchmark.report is not None]
    if not shown:
        return Html("")
    (newest, measured), *older = shown
    parts: list[Any] = [
        element("h2", "Benchmark against the base"),
        _comparison(measured),
        _ranking(measured),
        _tasks(measured),
        *(element("p", note, style="warning") for note in measured.notes),
        element(
            "p",
            f"{newest.job_id} · {measured.split}.jsonl of {newest.data}, {measured.tokens:,} counted tokens",
            style="muted small",
        ),
    ]
    if older:
        lines = [element("li", f"{clock(other.created)}, {other.job_id}: {text.summary}") for other, text in older]
        parts.append(element("details", element("summary", f"{len(older)} earlier"), element("ul", *lines), id="older"))
    return join(parts)


def _comparison(measured: BenchmarkReport) -> Html:
    columns = [_figures(one) for one in (measured.base, measured.adapter) if one is not None]
    rows: list[list[str]] = []
    for name in dict.fromkeys(name for column in columns for name in column):
        values = [column.get(name) for column in columns]
        if any(isinstance(value, int | float) for value in values):
            cells = (_figure(name, value) for value in values)
            rows.append([name.replace("_per_second", "/s").replace("_gb", ", GB").replace("_", " "), *cells])
    return table(rows, head=("", "base", *([_measured_adapter(measured)] if measured.adapter else [])))


def _ranking(measured: BenchmarkReport) -> Html:
    """Of several adapters the loss of each, lowest first."""
    if not measured.ranking:
        return Html("")
    rows = [
        (
            line.name,
            f"{line.loss:,.5g}",
            "" if line.loss_difference is None else f"{line.loss_difference:+.4g}, {spread(line.interval_95)}",
            "" if line.verdict is None else badge(line.verdict),
        )
        for line in measured.ranking
    ]
    return table(rows, head=("ranking", "loss", "against the base", "verdict"))


def _tasks(measured: BenchmarkReport) -> Html:
    """The scores of lm-evaluation-harness tasks."""
    if not measured.tasks:
        return Html("")
    rows = [
        (
            f"{score.task} {score.metric}",
            f"{score.base:,.5g}",
            "–" if score.adapter is None else f"{score.adapter:,.5g}",
            "" if score.verdict is None else join([badge(score.verdict), " ", spread(score.interval_95)]),
            f"{score.examples:,}",
        )
        for score in measured.tasks
    ]
    return table(rows, head=("task", "base", _measured_adapter(measured), "verdict", "examples"))


def _measured_adapter(measured: BenchmarkReport) -> str:
    """What the adapter is called; of several, such as a job's checkpoints, the report is about the first."""
    return Path(measured.adapter_path).name if measured.ranking and measured.adapter_path else "adapter"


def _figures(measured: Measured) -> dict[str, Any]:
    """What was measured of one model by name; of speeds the medians."""
    found: dict[str, Any] = dict(measured)
    speed = found.pop("speed")
    for name, value in [] if speed is None else list(speed):
        if isinstance(value, Spread):
            found[name] = value.median
    return found | ({} if speed is None else {"peak_memory_gb": speed.peak_memory_gb})


def _figure(name: str, value: Any) -> str:
    if not isinstance(value, int | float):
        return "–"
    return figure(name, value, digits=1) if name in METRICS else f"{value:,.5g}"


def _samples(facts: JobFacts) -> Html:
    measured = next((one.report for one in facts.benchmarks if one.report is not None and one.report.samples), None)
    if measured is None:
        return Html("")
    blocks = [
        element(
            "div", *(_sample_part(name, value) for name, value in _fields(sample) if value is not None), style="sample"
        )
        for sample in measured.samples
    ]
    return join([element("h2", f"Samples of {measured.split}.jsonl"), *blocks])


def _fields(model: BaseModel) -> list[tuple[str, Any]]:
    return [(name, getattr(model, name)) for name in type(model).model_fields]


def _sample_part(name: str, value: Any) -> Html:
    return element("div", element("b", name.replace("_", " ")), element("pre", plain(value)))


def _data(facts: JobFacts) -> Html:
    options, known = facts.options, facts.history.facts
    if facts.spec.kind != "train":
        return Html("")
    recorded: dict[str, Any] = facts.provenance.get("data") or {}
    rows_of: dict[str, Any] = known.get("rows") or recorded.get("rows") or {}
    files: dict[str, Any] = recorded.get("files") or {}
    names = list(dict.fromkeys([*rows_of, *(name.removesuffix(".jsonl") for name in files)]))
    rows = [
        (
            name,
            f"{rows_of[name]:,}" if name in rows_of else "not read",
            element("code", files.get(f"{name}.jsonl", "–")),
        )
        for name in names
    ]
    parts: list[Any] = [element("h2", "Data"), element("p", element("code", facts.spec.options.get("data")))]
    if isinstance(options, TrainingOptions) and rows_of.get("train"):
        seen = facts.history.train[-1][0] if facts.history.train else 0
        epochs = seen / options.steps_per_epoch(rows_of["train"])
        parts.append(element("p", f"Each training row was seen {epochs:.2g} times so far." if seen else "No step yet."))
    if rows:
        parts.append(table(rows, head=("split", "rows", "digest when the adapter was saved")))
    return join(parts)


def _configuration(facts: JobFacts) -> Html:
    def rows(values: dict[str, Any]) -> Html:
        return table(((name, plain(value)) for name, value in values.items()), style="config")

    parts: list[Any] = [element("h2", "Configuration"), element("p", "What differs from the defaults:", style="muted")]
    parts.append(rows(facts.changed))
    if facts.lowered:
        parts.append(element("p", f"Lowered after an out-of-memory: {'; '.join(facts.lowered)}", style="warning"))
    if facts.options is not None:
        every = redact_value(facts.options.model_dump(mode="json"))
        parts.append(element("details", element("summary", f"All {len(every)} options"), rows(every), id="options"))
    if facts.result and facts.spec.kind != "benchmark":
        parts.append(
            element("details", element("summary", "Result as recorded"), rows(redact_value(facts.result)), id="result")
        )
    if versions := facts.provenance.get("versions"):
        text = ", ".join(f"{name} {version}" for name, version in versions.items())
        parts.append(element("p", f"Versions: {text}", style="muted small"))
    return join(parts)


def _repeat(facts: JobFacts) -> Html:
    command = facts.command
    if command is None:
        return Html("")
    return join([element("h2", "Repeat it"), element("pre", command)])
