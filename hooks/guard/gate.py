"""The decision on one tool call, and what is said when the gate itself fails."""

from __future__ import annotations

from . import paths, settings, wire
from .prefilter import MAX_PAYLOAD
from .shell.marks import clean
from .verdict import ALLOW, ASK, DENY, Finding, Verdict
from .world import World

TYPE_CHECKING = False  # `typing` would be one more import
if TYPE_CHECKING:
    from typing import Any

MAX_COMMAND = 100_000  # characters; a longer command is not read, only searched for our names
DEADLINE_SECONDS = 4  # well under the hook's own time-out, after which Claude Code would let the call pass
# A text that names one of these is refused when it can't be judged.
NAMES = (
    "adapter", "safetensors", "checkpoint", "mlx", "train.jsonl", "valid.jsonl", "test.jsonl", "models", "data", "lora", "fused",
    "huggingface", ".gguf", ".npz",
)  # fmt: skip
HUB_PROGRAMS = frozenset(("hf", "huggingface-cli", "curl", "wget", "http", "https", "xh"))
LIMIT_PROGRAMS = frozenset(("sysctl", "purge", "ulimit", "launchctl", "nvram", "prlimit"))
# rule -> whether the world could concern it; the module is imported only then
POLICIES = (
    ("platform", "platform", lambda w: w.scene.works or w.scene.inside),
    ("artefacts", "artefacts", lambda w: w.file or w.scene.touches),
    ("data_sets", "data-sets", lambda w: w.file or w.scene.touches),
    ("data_content", "data-content", lambda w: w.file or any(touch.text for touch in w.scene.touches)),
    ("one_training", "one-training", lambda w: any(work.kind == "train" for work in w.scene.works)),
    ("running_jobs", "running-jobs", lambda w: w.scene.kills),
    ("machine", "machine", lambda w: w.starts(LIMIT_PROGRAMS) or any("sysctl" in touch.path for touch in w.scene.touches)),
    ("hub", "hub", lambda w: w.scene.works or w.scene.pushes or w.scene.python or w.starts(HUB_PROGRAMS)),
    ("remote_code", "remote-code", lambda w: w.says("trust") or w.scene.works or w.scene.python),
    ("secrets", "secrets", lambda w: True),
    ("guard_itself", "guard", lambda w: w.file or w.scene.touches or w.starts(frozenset(("claude",)))),
)  # fmt: skip


class Unjudged(Exception):
    """The call is too large to be read."""


def project_of(payload: dict[str, Any]) -> str:
    return paths.env("CLAUDE_PROJECT_DIR") or payload.get("cwd") or "/"


def judge(payload: dict[str, Any]) -> tuple[Verdict, World]:
    """Judge one PreToolUse call.

    Raises:
        Unjudged, Limit: it is too large or too deep to be read; `failed` says what that means.
    """
    paths.forget()
    cwd = payload.get("cwd")
    cwd = paths.normal(cwd, "/") if isinstance(cwd, str) and cwd else "/"
    project = project_of(payload)
    inputs = payload.get("tool_input")
    inputs = inputs if isinstance(inputs, dict) else {}
    tool = payload.get("tool_name")
    world = World("", cwd, project, settings.load(project))
    if tool == "Bash":
        read_command(world, str(inputs.get("command") or ""))
    else:
        read_file_tool(world, str(tool), inputs)
    return Verdict(findings(world)), world


def read_command(world: World, command: str) -> None:
    from .effects.scene import State
    from .effects.walker import Walker
    from .shell.globs import Looked

    world.text = clean(command)
    if len(command) > MAX_COMMAND:
        raise Unjudged("the command is longer than is read")
    Looked.names = 0
    Walker(world.scene).code(world.text, State(world.cwd))


def read_file_tool(world: World, tool: str, inputs: dict[str, Any]) -> None:
    """Write, Edit, MultiEdit, NotebookEdit: the text before and after."""
    path = inputs.get("file_path") or inputs.get("notebook_path") or ""
    world.tool = tool
    world.file = paths.normal(str(path), world.cwd)
    world.old = paths.read_text(world.file, 8_000_000) or ""
    edits = inputs.get("edits") if isinstance(inputs.get("edits"), list) else [inputs]
    if tool == "Write":
        world.new = str(inputs.get("content") or "")
        world.pieces = [world.new]
    elif tool == "NotebookEdit":
        world.new = world.old
        world.pieces = [str(inputs.get("new_source") or "")]
    else:
        text = world.old
        for edit in edits:  # pyright: ignore[reportOptionalIterable]
            if isinstance(edit, dict) and isinstance(edit.get("new_string"), str):
                old, new = str(edit.get("old_string") or ""), edit["new_string"]
                world.pieces.append(new)
                text = (
                    (text.replace(old, new, -1 if edit.get("replace_all") else 1) if old else new)
                    if old or not text
                    else text
                )
        world.new = text
    world.text = " ".join(world.pieces)


def findings(world: World) -> list[Finding]:
    found: list[Finding] = []
    for module_name, rule, wanted in POLICIES:
        if rule in world.settings.off or not wanted(world):
            continue
        module = __import__(__package__ + ".policies." + module_name, globals(), locals(), ("judge",))  # pyright: ignore[reportOptionalOperand]
        found += module.judge(world)
    return found


def failed(text: str, why: str) -> Verdict:
    """The answer when a call could not be judged: refused when it names something protected, else silence."""
    lowered = text.lower()
    if not any(name in lowered for name in NAMES):
        return Verdict([])
    return Verdict([Finding(
        DENY, "gate", "this call could not be judged: " + why,
        "it names models, adapters or data, and what it does to them is not known",
        "split it into smaller, plainer commands",
    )])  # fmt: skip


def unjudged(text: str, error: BaseException) -> Verdict:
    """`failed` for an exception; a deletion that is too wide to be searched is asked about, whatever it names."""
    name = type(error).__name__
    told = {"RecursionError": "nested too deeply"}.get(name, name + " in the gate")
    told = str(error) if name in ("Limit", "Wide", "Unjudged", "Late") else told
    verdict = failed(text, told)
    if verdict.decision == ALLOW and name == "Wide":
        return Verdict([Finding(
            ASK, "gate", "this deletes more than could be searched: " + told, "weights or data may lie deep in it",
            "delete its folders one by one, or let the user decide",
        )])  # fmt: skip
    return verdict


def answer(verdict: Verdict) -> str:
    """The hook's JSON; empty for silence. There is never an explicit allow."""
    if verdict.decision == ALLOW:
        return ""
    return wire.dumps({"hookSpecificOutput": {
        "hookEventName": "PreToolUse", "permissionDecision": verdict.word, "permissionDecisionReason": verdict.reason(),
    }})  # fmt: skip


def text_of(payload: dict[str, Any]) -> str:
    """What a failing gate searches for our names."""
    inputs = payload.get("tool_input")
    if not isinstance(inputs, dict):
        return ""
    if payload.get("tool_name") == "Bash":
        return str(inputs.get("command") or "")
    return str(inputs.get("file_path") or inputs.get("notebook_path") or "")


def decide(payload: dict[str, Any]) -> Verdict:
    """`judge`, with failures turned into verdicts and the outcome kept in the audit trail."""
    try:
        verdict, _ = judge(payload)
    except (Exception, Late) as error:  # whatever went wrong is ours: it must not become a permission
        verdict = unjudged(text_of(payload), error)
    if verdict.decision != ALLOW:
        from . import audit

        audit.record(payload, verdict)
    return verdict


class Late(BaseException):
    """Our own deadline passed; no `except Exception` on the way may swallow it."""


def main(raw: bytes) -> str:
    """One call from the entry script: judged under the deadline, answered as text for standard output."""
    import _signal  # pyright: ignore[reportMissingImports]

    if len(raw) > MAX_PAYLOAD:
        text = raw[raw.find(b'"tool_input"') :].decode("utf-8", "replace")
        return answer(failed(text, "it is longer than is read"))
    payload = wire.loads(raw.decode("utf-8", "replace"))

    def late(_number: int, _frame: object) -> None:
        raise Late("it took longer than " + str(DEADLINE_SECONDS) + " s")

    _signal.signal(_signal.SIGALRM, late)
    _signal.alarm(DEADLINE_SECONDS)
    text = answer(decide(payload))
    _signal.alarm(0)
    return text
