"""Learning-rate schedules, resolved before the start to mlx-lm's own form where it has one.

mlx-lm counts a schedule in optimizer updates, of which there is one every ``grad_accumulation_steps`` iterations. The names
and phases here are given in iterations and turned into updates. Formulas (n: update, from 0; w: warm-up updates; N: updates
after the warm-up; r: learning_rate), as in mlx.optimizers.schedulers; mlx-lm joins the two after update w:

    warm-up      r * n / w                                  for n <= w
    constant     r
    linear       r * (1 - m / N)                            m = n - w - 1 (n without warm-up), 0 at most after N
    cosine       r * (1 + cos(pi * m / N)) / 2
    exponential  r * 0.01 ** (m / N)                        ends at a hundredth of r
    step         r * 0.1 ** (m // (N / 3))                  three steps, each a tenth of the one before
"""

from __future__ import annotations

from typing import Any

from mcp_server.errors import ArgumentError

NAMES = ("constant", "linear", "cosine", "exponential", "step")
Phases = list[tuple[int, float]]


def parse_phases(text: str) -> Phases | None:
    """``"400:2e-5,400:1e-5"`` as [(iterations, rate), ...]; None when ``text`` is not of that form at all.

    Raises ArgumentError when it is but a number is out of range.
    """
    if ":" not in text:
        return None
    phases: Phases = []
    for part in text.split(","):
        iterations, _, rate = part.partition(":")
        try:
            phase = (int(iterations), float(rate))
        except ValueError as error:
            raise ArgumentError(
                f"lr_schedule={text!r}: {part.strip()!r} is not iterations:rate; write for example '400:2e-5,400:1e-5'"
            ) from error
        if phase[0] < 1 or not 0 < phase[1] < float("inf"):
            raise ArgumentError(f"lr_schedule={text!r}: {part.strip()!r} needs at least 1 iteration and a rate above 0")
        phases.append(phase)
    return phases


def check_name(text: str) -> str:
    """``text`` if it names a schedule. Raises ArgumentError."""
    if text not in NAMES:
        raise ArgumentError(
            f"lr_schedule={text!r} is not known; give {', '.join(NAMES)}, phases such as '400:2e-5,400:1e-5', "
            "or mlx-lm's {name, arguments, warmup}"
        )
    return text


def named(name: str, *, rate: float, iters: int, warmup: float, accumulation: int) -> dict[str, Any] | None:
    """The named schedule in mlx-lm's form; None for a constant rate without warm-up. ``warmup``: iterations, or a share < 1."""
    check_name(name)
    updates = max(1, iters // accumulation)
    if warmup >= iters:
        raise ArgumentError(
            f"warmup={warmup:g} is not shorter than the run of {iters} iterations; give a share such as 0.1"
        )
    warm = round(updates * warmup) if warmup < 1 else max(1, round(warmup / accumulation))
    after = max(1, updates - warm)
    if name == "constant":
        if not warm:
            return None
        form: dict[str, Any] = {"name": "linear_schedule", "arguments": [rate, rate, 1]}
    elif name == "linear":
        form = {"name": "linear_schedule", "arguments": [rate, 0.0, after]}
    elif name == "cosine":
        form = {"name": "cosine_decay", "arguments": [rate, after]}
    elif name == "exponential":
        form = {"name": "exponential_decay", "arguments": [rate, 0.01 ** (1 / after)]}
    else:
        form = {"name": "step_decay", "arguments": [rate, 0.1, max(1, round(after / 3))]}
    return form | ({"warmup": warm} if warm else {})


def asked(form: dict[str, Any] | None, *, rate: float, iters: int, accumulation: int) -> tuple[str, int] | None:
    """The name and the warm-up, in iterations, of which ``named`` makes ``form``; None for a form that is not its."""
    warm = form.get("warmup", 0) if form is not None else 0
    if not isinstance(warm, int) or warm * accumulation >= iters:
        return None
    warmup = warm * accumulation
    for name in NAMES:
        if named(name, rate=rate, iters=iters, warmup=warmup, accumulation=accumulation) == form:
            return name, warmup
    return None


# Of mlx-lm's own forms: the least and the most arguments, and which of them counts updates.
_FORMS: dict[str, tuple[int, int, int | None]] = {
    "cosine_decay": (2, 3, 1),
    "exponential_decay": (2, 2, None),
    "linear_schedule": (3, 3, 2),
    "step_decay": (3, 3, 2),
}


def _is_rate(value: Any) -> bool:
    """Whether ``value`` is a finite number from 0 on."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


def check_form(form: dict[str, Any]) -> None:
    """Check mlx-lm's own form, whose mistakes it answers with a traceback. Raises ArgumentError."""
    name, arguments = form.get("name"), form.get("arguments")
    if name not in _FORMS:
        raise ArgumentError(f"lr_schedule.name={name!r}: mlx-lm knows {', '.join(_FORMS)}")
    least, most, steps_at = _FORMS[name]
    if not isinstance(arguments, list) or not least <= len(arguments) <= most:
        raise ArgumentError(
            f"lr_schedule.arguments={arguments!r}: {name} takes {least} to {most} numbers, the rate first"
        )
    if not all(_is_rate(value) for value in arguments):
        raise ArgumentError(
            f"lr_schedule.arguments={arguments!r} must be numbers from 0 on (in YAML write 1.0e-5, not 1e-5 as text)"
        )
    if not arguments[0] and not (name == "linear_schedule" and arguments[1]):
        raise ArgumentError(f"lr_schedule.arguments={arguments!r}: a rate of 0 trains nothing; the rate comes first")
    if steps_at is not None and not (arguments[steps_at] >= 1 and arguments[steps_at] % 1 == 0):
        raise ArgumentError(
            f"lr_schedule.arguments={arguments!r}: {arguments[steps_at]!r} is a count of updates, "
            "so a whole number from 1 on"
        )
    warmup, init = form.get("warmup", 0), form.get("warmup_init", 0.0)
    if warmup is not None and not (_is_rate(warmup) and warmup % 1 == 0):
        raise ArgumentError(
            f"lr_schedule.warmup={warmup!r} must be a whole number of updates; only a named schedule takes a share"
        )
    if not _is_rate(init):
        raise ArgumentError(f"lr_schedule.warmup_init={init!r} must be the rate to begin with, a number from 0 on")
    unknown = form.keys() - {"name", "arguments", "warmup", "warmup_init"}
    if unknown:
        raise ArgumentError(
            f"lr_schedule has unknown keys {', '.join(sorted(unknown))}; known: name, arguments, warmup, warmup_init"
        )
