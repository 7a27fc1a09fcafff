"""From what was asked to what is run: the call's own arguments, over a resumed run's, over a config file's, over the defaults."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator

from mcp_server.errors import ArgumentError, explain
from mcp_server.jobs.service import IfBusy
from mcp_server.training import resume, schedule
from mcp_server.training.config import read_config
from mcp_server.training.options import TrainingOptions
from mcp_server.training.resume import Earlier


class TrainingRequest(TrainingOptions):
    """TrainingOptions, of which a config file or an earlier run may give the rest."""

    model: str | None = Field(  # type: ignore[assignment] # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
        default=None, description="Model folder or Hub id; a 4-bit model gives QLoRA"
    )
    data: str | None = Field(  # type: ignore[assignment] # pyright: ignore[reportIncompatibleVariableOverride, reportGeneralTypeIssues]
        default=None,
        description="Folder with train.jsonl, valid.jsonl and, for benchmarks, test.jsonl; or a Hub data set",
    )
    resume: str | None = Field(
        default=None,
        description="Job id or checkpoint folder to go on from, exactly; other arguments default to that run's",
    )
    config: str | None = Field(default=None, description="mlx-lm YAML file with options; arguments of this call win")
    overwrite: bool = Field(default=False, description="Replace an existing adapter; the old one is kept in previous/")
    if_busy: IfBusy = Field(default="queue", description="When another job runs: wait in line, or refuse")

    @model_validator(mode="after")
    def _warmup_has_a_schedule(self) -> TrainingRequest:
        return self  # the config file or the earlier run may name it; looked at when all are put together


class Resolved(BaseModel):
    """What will run."""

    options: TrainingOptions
    earlier: Earlier | None = Field(default=None, description="The run that goes on")
    warnings: list[str] = Field(default_factory=list)


def resolve(request: TrainingRequest) -> Resolved:
    """The options with everything filled in but paths, ``epochs`` and the schedule. Raises a UserError."""
    own = {"resume", "config", "overwrite", "if_busy"}
    given = request.model_dump(mode="json", include=request.model_fields_set - own)
    given = {name: value for name, value in given.items() if not (name in ("model", "data") and value is None)}
    warnings: list[str] = []
    base: dict[str, Any] = {}
    earlier: Earlier | None = None
    if request.config is not None:
        base, warnings = read_config(request.config)
        if given.get("epochs") is not None and "iters" not in given:
            base.pop("iters", None)
    if request.resume is not None:
        earlier = resume.find(request.resume)
        base |= earlier.carried(given)
        if earlier.unknown:
            warnings.append(
                f"the checkpoint, of another version, has options unknown here: {', '.join(earlier.unknown)}"
            )
    options = _validate({**base, **given})
    if earlier is not None:
        earlier.check_fit(options)
        if "iters" in options.model_fields_set:
            earlier.check_length(options.iters)
    return Resolved(options=options, earlier=earlier, warnings=warnings + _without_effect(options))


def _without_effect(options: TrainingOptions) -> list[str]:
    """Warnings about what the chosen optimizer does not look at."""
    found: list[str] = []
    chosen, settings = options.optimizer, options.optimizer_config
    if chosen == "adafactor" and settings.get(chosen, {}).get("relative_step", True):
        found.append(
            f"adafactor takes steps of its own size: learning_rate={options.learning_rate:g} and lr_schedule, though the log "
            'shows their rate, change nothing; give optimizer_config={"adafactor": {"relative_step": false}} to use them'
        )
    others = [name for name, values in settings.items() if values and name != chosen]
    if others:
        found.append(
            f"optimizer_config has settings for {', '.join(others)}, but the optimizer is {chosen}: they change nothing; "
            f"give optimizer={others[0]!r}, or settings for {chosen}"
        )
    return found


def _validate(values: dict[str, Any]) -> TrainingOptions:
    try:
        options = TrainingOptions.model_validate(values)
    except ValidationError as error:
        raise explain(error, TrainingOptions) from error
    if options.epochs is not None and "iters" in values:
        raise ArgumentError(f"epochs={options.epochs:g} and iters={options.iters} both say how long; give one of them")
    return options


def resolve_length(options: TrainingOptions, rows: int | None) -> TrainingOptions:
    """Turn ``epochs`` and the phases or name of ``lr_schedule`` into ``iters`` and mlx-lm's form. ``rows``: of train.jsonl."""
    phases = schedule.parse_phases(options.lr_schedule) if isinstance(options.lr_schedule, str) else None
    if options.epochs is not None:
        if rows is None:
            raise ArgumentError("epochs needs local data, whose rows can be counted; give iters instead")
        steps = max(1, math.ceil(options.epochs * options.steps_per_epoch(rows)))
        options = options.model_copy(update={"iters": steps, "epochs": None})
    elif phases is not None and "iters" not in options.model_fields_set:
        options = options.model_copy(update={"iters": sum(iterations for iterations, _ in phases)})
    if phases is not None:
        total = sum(iterations for iterations, _ in phases)
        if total != options.iters:
            raise ArgumentError(
                f"lr_schedule={options.lr_schedule!r} covers {total} iterations but the run has {options.iters}; "
                "make them equal (give the other one too), or leave iters out"
            )
        return options.model_copy(update={"learning_rate": phases[0][1]})
    if isinstance(options.lr_schedule, str):
        form = schedule.named(
            options.lr_schedule,
            rate=options.learning_rate,
            iters=options.iters,
            warmup=options.warmup,
            accumulation=options.grad_accumulation_steps,
        )
        return options.model_copy(update={"lr_schedule": form, "warmup": 0})
    if options.lr_schedule is not None:
        schedule.check_form(options.lr_schedule)
    return options
