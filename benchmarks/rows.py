"""The rows of RESULTS.md: which figures of a measurement's JSON are shown, beside which goal, and whether it is met."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

Found = dict[str, Any]


class Row(NamedTuple):
    """What was measured, the figure with its spread, the goal; ``met`` is None where there is no goal."""

    what: str
    figure: str
    goal: str = ""
    met: bool | None = None


def times(ratio: float, low_high: list[float] | None = None) -> str:
    """A ratio, and the least and largest of its rounds when there was more than one."""
    ends = f" ({low_high[0]}–{low_high[1]})" if low_high and low_high[0] != low_high[1] else ""
    return f"{ratio} ×{ends}"


def start(found: Found) -> Iterator[Row]:
    figure = times(found["ratio"], found["ratio_min_max"])
    seconds = found["median_seconds"]
    yield Row("spawn to first answer, against a bare `MCPServer`", figure, "≤ 1.25 ×", found["ratio"] <= 1.25)
    yield Row("in seconds, ours and the bare one's", f"{seconds['ours']}, {seconds['bare']}")
    yield Row("CPU time, least of all rounds", times(found["cpu_ratio"]))


def calls(found: Found) -> Iterator[Row]:
    milliseconds = found["median_ms"]
    yield Row("round trip, against the same call on a bare `MCPServer`", times(found["ratio"], found["ratio_min_max"]))
    yield Row("in milliseconds, ours and the bare one's", f"{milliseconds['ours']}, {milliseconds['bare']}")


def logs(found: Found) -> Iterator[Row]:
    for name, value in found.items():
        if isinstance(value, dict) and "ratio" in value:
            what = f"{found['events']:,} events against 1,000, read {name}"
            yield Row(what, times(value["ratio"], value["ratio_min_max"]), "≤ 3 ×", value["ratio"] <= 3)


def overhead(found: Found) -> Iterator[Row]:
    speed, peak, equal = found["speed_ratio_median"], found["peak_memory_ratio"], found["losses_equal"]
    yield Row("tokens/s against stock", times(speed, found["speed_ratio_min_max"]), "≥ 0.98 ×", speed >= 0.98)
    yield Row("peak memory against stock", times(peak), "≤ 1.02 ×", peak <= 1.02)
    yield Row("losses the same to the last bit", "yes" if equal else "no", "yes", equal)


def peers(found: Found) -> Iterator[Row]:
    def named(name: str) -> str:
        return f"{name} {found['versions'].get(name, '')}".strip()

    for name, figures in found["contenders"].items():
        if name != "mlx_lm.lora":
            speed, peak = (times(figures[key], figures[f"{key}_min_max"]) for key in ("speed", "peak_memory"))
            yield Row(f"{named(name)}: tokens/s against stock", speed)
            yield Row(f"{named(name)}: peak memory against stock", peak)
    for name, why in found["do_not_run_here"].items():
        yield Row(f"{named(name)} does not run here", f"`{why.strip().splitlines()[-1][:120]}`")


def exact(found: Found) -> Iterator[Row]:
    for pair, figures in found.items():
        if isinstance(figures, dict) and "weights_equal" in figures:
            difference, equal = figures["largest_loss_difference"], figures["weights_equal"]
            yield Row(
                f"{pair.replace(':', ', ')}: {figures['kills']} kills, {figures['resumes']} resumes",
                f"largest difference of a loss {difference}, weights {'equal' if equal else 'differ'}",
                "0.0, equal",
                difference == 0 and equal,
            )


def quality(found: Found) -> Iterator[Row]:
    """Below zero: the measures' held-out loss is the lower one."""
    low, high = found["difference_min_max"]
    middle, spread = found["difference_median"], found["stock_spread"]
    for pair in found["losses"]:
        yield Row(f"seed {pair['seed']}", f"{pair['ours']:.4f}, stock {pair['stock']:.4f}")
    figure = f"{middle:+.4f} ({low:+.4f} to {high:+.4f}); stock's own losses differ by {spread:.4f}"
    yield Row(f"difference, median of {len(found['losses'])} seeds", figure, "≤ 0", middle <= 0)


def distributed(found: Found) -> Iterator[Row]:
    asked, ratios = found["arguments"], found["speed_ratio"]
    limit = 1e-5 if asked["dtype"] == "float32" else 1e-3
    difference = found["largest_relative_loss_difference"]
    size = f"{found['engine']}, {asked['dtype']}, {asked['layers']} layers of {asked['hidden']}"
    yield Row(f"largest relative difference of {found['steps_compared']} losses: {size}", f"{difference:.1e}",
              f"≤ {limit:.0e}", difference <= limit)  # fmt: skip
    yield Row(
        "steps/s against one rank, same global batch",
        times(sorted(ratios)[len(ratios) // 2], [min(ratios), max(ratios)]),
    )
    yield Row(
        "peak memory of a rank, GB; of one rank alone", f"{found['peak_gb']['several']}; {found['peak_gb']['one']}"
    )


def planner(found: Found) -> Iterator[Row]:
    cases = [case for case in found["cases"] if "failed" not in case]
    limits = {"probe_memory_error": ("peak memory", 3), "step_time_error": ("time of a step", 15)}
    limits["total_time_error"] = ("time of the whole run", 15)
    count = f"{len(cases)} cases" if len(cases) > 1 else "1 case"
    for key, (what, percent) in limits.items():
        if errors := sorted((case[key] for case in cases), key=abs):
            middle = sorted(map(abs, errors))[len(errors) // 2]
            figure = f"{errors[-1]:+.1%} (median of the sizes {middle:.1%})"
            yield Row(f"{what}, worst of {count}", figure, f"± {percent} %", abs(errors[-1]) <= percent / 100)
    for case in found["cases"]:
        if "failed" in case:
            yield Row(case["case"], f"gave no figure: {case['failed'][:100]}", "a figure", False)
            continue
        memory, step, total = (f"{case[key]:+.1%}" for key in limits)
        ran = f"{case['seconds_in_all']['run']:.0f} s"
        steps = case.get("steps", found.get("steps"))
        yield Row(f"{case['case']}, {steps} steps in {ran}", f"memory {memory}, step {step}, whole {total}")


def estimate(found: Found) -> Iterator[Row]:
    """By the part that the configurations played: in fitting the formula, or in testing it."""
    for part, one in found["parts"].items():
        median, worst, under = one["median_error"], one["worst_error"], one["furthest_under"]
        yield Row(
            f"{part.replace('_', ' ')}: {one['configurations']} configurations",
            f"median {median:.1%}, worst {worst:.1%}, furthest under {under:+.1%}",
            "≤ 8 %, ≤ 20 %, ≥ -10 %",
            median <= 0.08 and worst <= 0.2 and under >= -0.1,
        )


def hooks(found: Found) -> Iterator[Row]:
    goals = {"unrelated": 1.15, "parsed": 2.7}
    kinds = {kind: _calls_of(found, kind) for kind in (*goals, "cc-safety-net")}
    for kind, chosen in kinds.items():
        if chosen:
            ratios = [row["ratio"] for row in chosen]
            worst, goal = max(ratios), goals.get(kind)
            name = found["peer"] if kind == "cc-safety-net" else f"{kind} calls"
            slow = max(row["p95_ms"] for row in chosen)
            yield Row(
                f"{name}, worst of {len(chosen)} commands, against bare python",
                f"{worst} × (the best {min(ratios)}), slowest p95 {slow} ms",
                f"≤ {goal} ×" if goal else "",
                worst <= goal if goal else None,
            )
    if why := found.get("peer_unavailable"):
        yield Row(f"{found['peer']} does not run here", f"`{why.strip().splitlines()[-1][:120]}`")


def _calls_of(found: Found, kind: str) -> list[dict[str, float]]:
    return [row for label, row in found["rows"].items() if label.startswith(kind)]


def gate(found: Found) -> Iterator[Row]:
    """Deny and ask both count as caught."""
    cases = f"of {found['cases']} cases, {found['harmful']} harmful"
    rates = {"precision": ("≥ 99 %", 0.99), "recall": ("≥ 95 %", 0.95)}
    for name, (goal, least) in rates.items():
        yield Row(f"{name}, {cases}", f"{found[name]:.1%}", goal, found[name] >= least)
    alarms = found["false_alarm_rate"]
    yield Row("false alarms", f"{alarms:.1%}", "≤ 1 %", alarms <= 0.01)
    yield Row("errors", str(found["errors"]), "0", found["errors"] == 0)


def context(found: Found) -> Iterator[Row]:
    job = found["main job"]
    largest = max(job["each"], key=lambda each: each["tokens"])
    main = found["main session"]["total"]["tokens"]
    results = job["results"]["tokens"]
    yield Row("what every session is sent, tokens", f"{main:,}", "≤ 1,200", main <= 1200)
    yield Row("a whole fine-tuning, calls", str(job["calls"]), "≤ 10", job["calls"] <= 10)
    yield Row("its results in all, tokens", f"{results:,}", "≤ 8,000", results <= 8000)
    yield Row(f"its largest result ({largest['tool']}), tokens", f"{largest['tokens']:,}", "≤ 2,500",
              largest["tokens"] <= 2500)  # fmt: skip
    for part, figures in found["specialist"].items():
        if "tokens" in figures:
            yield Row(f"the specialist alone: {part}, tokens", f"{figures['tokens']:,}")


def datasets(found: Found) -> Iterator[Row]:
    loops = found["cpu_time_as_multiple_of_json_loads"]
    whole = found["parts"]["whole"]
    yield Row(f"{found['rows']:,} rows inspected, peak memory", f"{whole['peak_mb']} MB", "< 1,000 MB",
              whole["peak_mb"] < 1000)  # fmt: skip
    yield Row("CPU time, against a loop of `json.loads`", f"{loops['whole']} ×")
    yield Row("the same without near-duplicates", f"{loops['exact']} ×")
    yield Row("the checks of start_lora_training alone", f"{loops['scan']} ×")


def parity(found: Found) -> Iterator[Row]:
    losses = max(pair["difference"] for pair in found["test_loss"].values())
    words = found["perplexity"]["ratio"]
    speed, ends = found["speed_ratio_median"], found["speed_ratio_min_max"]
    yield Row("test loss against `mlx_lm lora --test`, larger difference of base and adapter", str(losses), "≤ 0.001",
              losses <= 1e-3)  # fmt: skip
    yield Row("perplexity against `mlx_lm.perplexity`", f"{words} ×", "within 1 %", abs(words - 1) <= 0.01)
    yield Row("generation tokens/s against `mlx_lm.benchmark`", times(speed["generation"], ends["generation"]),
              "within 5 %", abs(speed["generation"] - 1) <= 0.05)  # fmt: skip
    yield Row("prompt tokens/s against `mlx_lm.benchmark`", times(speed["prompt"], ends["prompt"]))


def coverage(found: Found) -> Iterator[Row]:
    for case, kinds in found["coverage"].items():
        others = ", ".join(f"{kind} {share:.1%}" for kind, share in kinds.items() if kind != "ours")
        met = 0.93 <= kinds["ours"] <= 0.97
        yield Row(f"{case}, {found['pairs']:,} simulated", f"ours {kinds['ours']:.1%}; {others}", "93–97 %", met)


def measures(found: Found) -> Iterator[Row]:
    """Each configuration of ``measures.py`` against stock, in one file."""
    for workload, configurations in found["workloads"].items():
        for name, one in configurations.items():
            if "failed" in one:
                yield Row(f"{workload}: {name}", f"failed: {one['failed'][:80]}")
            elif name != "stock":
                stock = one["peak_gb"] / one["peak_ratio"]
                figure = (
                    f"{times(one['speed_ratio'], one['speed_ratio_min_max'])}; {one['peak_ratio']} × of {stock:.3g} GB"
                )
                count = "1 round" if one["rounds"] == 1 else f"{one['rounds']} rounds"
                goal, met = _measures_goal(found, workload, one) if name == "default" else ("", None)
                yield Row(f"{workload}: {name}, {count}", figure, goal, met)


def _measures_goal(found: Found, workload: str, one: Found) -> tuple[str, bool | None]:
    """The goals are for rows of up to 2,048 tokens: on the CPU, and for a 3B shape on CUDA."""
    asked = found["arguments"]
    speed, peak = one["speed_ratio"], one["peak_ratio"]
    if asked["tokens"] == 2048 and workload == "real" and found["backend"] == "linux-cpu":
        return "≥ 1.25 ×", speed >= 1.25
    if asked["tokens"] == 2048 and found["backend"] == "linux-cuda" and asked["shape"] == "qwen2.5-3b":
        if workload == "real":
            return "≥ 1.3 ×", speed >= 1.3
        return "≥ 1.1 ×; ≤ 0.45 ×", speed >= 1.1 and peak <= 0.45
    return "", None
