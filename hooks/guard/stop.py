"""When the specialist is about to stop: hold it back once for each thing that it would leave unsaid.

Three things: a job it started failed and the report doesn't say so; a job still runs and the report names neither its
id nor how to follow it; a training finished and was never compared with the base model.
"""

from __future__ import annotations

from . import paths, shared, wire

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from typing import Any

SPECIALIST = "mlx-training:mlx-training-specialist"
START = "__start_lora_training"
FAILED = ("failed", "lost")
RUNNING = ("queued", "working")
FAILURE_WORDS = (
    "fail",
    "error",
    "crash",
    "lost",
    "did not finish",
    "didn't finish",
    "not complete",
    "killed",
    "out of memory",
    "aborted",
    "stopped",
)
FOLLOW_WORDS = ("read_training_log", "mlx-training log", "mlx-training jobs", "--follow")
NO_COMPARISON_WORDS = (
    "not compared",
    "no benchmark",
    "without a benchmark",
    "not benchmarked",
    "no comparison",
    "could not compare",
    "couldn't compare",
)
LATE_STEPS = 20  # of 50 ms
MAX_TRANSCRIPT = 60_000_000


def review(payload: dict[str, Any]) -> str:
    """The hook's JSON: a block with the exact reason, or empty to let go."""
    if payload.get("agent_type") != SPECIALIST:
        return ""
    path = payload.get("agent_transcript_path") or payload.get("transcript_path")
    report = str(payload.get("last_assistant_message") or "")
    text = transcript_with(str(path), report) if path else ""
    if not text:
        return ""
    held = Held(str(payload.get("agent_id") or payload.get("session_id") or "main"))
    reasons = []
    for job_id in started(text):
        for topic, reason in unsaid(job_id, report):
            if held.first(job_id + " " + topic):
                reasons.append(reason)
    # Should the memory not be writable, the client's own flag keeps this from going round in a loop.
    if not reasons or (payload.get("stop_hook_active") and not held.kept):
        return ""
    return wire.dumps({"decision": "block", "reason": "Before you stop: " + " ".join(reasons)})


def transcript_with(path: str, report: str) -> str:
    """The transcript once it holds the agent's last words: the client writes it in the background, and may be late."""
    import time

    plain = max(report.replace('"', "\n").replace("\\", "\n").split("\n"), key=len)[:60]
    mark = plain if plain.isascii() else ""
    for _ in range(LATE_STEPS):
        text = paths.read_text(path, MAX_TRANSCRIPT) or ""
        if mark in text:
            break
        time.sleep(0.05)
    return text  # pyright: ignore[reportPossiblyUnboundVariable]


def started(transcript: str) -> list[str]:
    """The ids of the jobs that start_lora_training gave back, in order."""
    calls: set[str] = set()
    jobs: list[str] = []
    for line in transcript.split("\n"):
        if START not in line and "tool_result" not in line:
            continue
        try:
            entry = wire.loads(line)
        except ValueError:
            continue
        message = entry.get("message") if isinstance(entry, dict) else None
        content = message.get("content") if isinstance(message, dict) else None
        for block in content if isinstance(content, list) else ():
            if not isinstance(block, dict):
                continue
            if block.get("type") == "tool_use" and str(block.get("name", "")).endswith(START):
                calls.add(str(block.get("id")))
            elif block.get("type") == "tool_result" and block.get("tool_use_id") in calls and not block.get("is_error"):
                job = job_of(block.get("content"))
                if job and job not in jobs:
                    jobs.append(job)
    return jobs


def job_of(content: Any) -> str:
    """The job_id in a tool's result: JSON text, or text blocks that hold it."""
    texts = [content] if isinstance(content, str) else [
        str(block.get("text", "")) for block in content or () if isinstance(block, dict)
    ]  # fmt: skip
    for text in texts:
        try:
            value = wire.loads(text)
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get("job_id"), str):
            return value["job_id"]
    return ""


def record(job_id: str, name: str) -> dict[str, Any]:
    """One of a job's JSON files; empty when it isn't there."""
    if "/" in job_id:
        return {}
    text = paths.read_text(paths.join(shared.home(), f"jobs/{job_id}/{name}"), 4_000_000)
    try:
        value = wire.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def unsaid(job_id: str, report: str) -> list[tuple[str, str]]:
    """(topic, reason) of everything about one job that the report leaves out."""
    state = record(job_id, "state.json")
    status = state.get("status")
    lowered = report.lower()
    if status in FAILED and not any(word in lowered for word in FAILURE_WORDS):
        why = state.get("why") or "no reason was recorded"
        return [
            (
                "failed",
                f"job {job_id} {status} ({why}), and your report doesn't say so. Say what failed and why, or mend it and start again.",
            )
        ]
    if status in RUNNING and job_id not in report and not any(word in lowered for word in FOLLOW_WORDS):
        return [
            (
                "running",
                f"job {job_id} is still {status}. Say so with its id and how to follow it (read_training_log, or `mlx-training log {job_id} --follow`), or wait for its end.",
            )
        ]
    if status == "completed" and not compared(job_id) and not any(word in lowered for word in NO_COMPARISON_WORDS):
        return [
            (
                "compared",
                f"job {job_id} finished, but its adapter was never compared with the base model. Run run_benchmark on it and report the result, or say why there is no comparison.",
            )
        ]
    return []


def compared(job_id: str) -> bool:
    """Whether a benchmark of the job's adapter exists: running, finished or waiting."""
    adapter = record(job_id, "spec.json").get("options", {}).get("adapter_path")
    for other in paths.listing(paths.join(shared.home(), "jobs")):
        spec = record(other, "spec.json")
        if spec.get("kind") == "benchmark" and adapter and any(same(one, adapter) for one in measured(spec)):
            if record(other, "state.json").get("status") not in ("failed", "lost", "cancelled"):
                return True
    return False


def measured(spec: dict[str, Any]) -> list[Any]:
    """The adapters that a benchmark compares with their base."""
    options = spec.get("options", {})
    return [options.get("adapter_path"), *(options.get("adapters") or [])]


def same(one: Any, other: Any) -> bool:
    return isinstance(one, str) and paths.real(one) == paths.real(str(other))


class Held:
    """Remembers for what an agent was held back, so that it never happens twice."""

    def __init__(self, agent: str) -> None:
        self.path = paths.join(shared.data_folder(), "held.log")
        self.agent = agent
        self.lines = set((paths.read_text(self.path, 4_000_000) or "").split("\n"))
        self.kept = True

    def first(self, topic: str) -> bool:
        """True the first time that this agent meets this topic."""
        line = self.agent + " " + topic
        if line in self.lines:
            return False
        self.lines.add(line)
        self.kept = paths.append_line(self.path, line)
        return True
