"""``mlx-training guard explain`` and ``log``: what the gate thinks of a command, and what it has stopped."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

HOOKS = Path(__file__).resolve().parents[2] / "hooks"


def add_commands(commands: Any) -> None:
    guard = commands.add_parser("guard", help="ask the gate: explain a command, show what was stopped")
    verbs = guard.add_subparsers(title="commands", metavar="COMMAND", required=True)
    explain_ = verbs.add_parser("explain", help="how the gate reads a command, what it would touch, and the verdict")
    explain_.add_argument("text", metavar="COMMAND", help="the command, in quotes; - reads it from standard input")
    explain_.add_argument("--cwd", help="the folder in which it would run (default: here)")
    explain_.add_argument("--json", action="store_true", help="machine-readable")
    explain_.set_defaults(run=_explain)
    log_ = verbs.add_parser("log", help="the audit trail, newest last")
    log_.add_argument("--limit", type=int, default=20, help="how many (default 20)")
    log_.add_argument("--json", action="store_true", help="machine-readable")
    log_.set_defaults(run=_log)


def _gate() -> Any:
    """The gate's own package: the hook and this command run the same code."""
    if str(HOOKS) not in sys.path:
        sys.path.insert(0, str(HOOKS))
    try:
        from guard import gate
    except ImportError as error:
        raise FileNotFoundError(f"the gate is not in {HOOKS}; run mlx-training from the plugin's folder") from error
    return gate


def explain(command: str, cwd: str) -> dict[str, Any]:
    """The reading of a Bash command, its effects and the verdict, as the PreToolUse hook comes to it. Runs nothing."""
    gate = _gate()
    from guard.prefilter import settled

    payload = {"tool_name": "Bash", "cwd": cwd, "tool_input": {"command": command}}
    told: dict[str, Any] = {
        "command": command,
        "cwd": cwd,
        "decision": "allow",
        "reading": [],
        "effects": [],
        "findings": [],
    }
    if settled(payload):
        told["reading"] = ["known to be harmless by its plain words alone; not read further"]
        return told
    try:
        verdict, world = gate.judge(payload)
    except Exception as error:  # the hook turns any failure into a verdict too
        verdict, world = gate.unjudged(command, error), None
    told["decision"] = verdict.word
    told["findings"] = [
        {"rule": each.rule, "seen": _shown(each.seen), "why": each.why, "instead": each.advice}
        for each in verdict.findings
    ]
    if world is not None:
        told["reading"] = [
            _shown(" ".join(run.argv) + (f"  [in {run.place}]" if run.place else "")) for run in world.scene.runs
        ]
        told["effects"] = [
            {
                "effect": touch.op,
                "path": _shown(touch.path),
                "protected": sorted({thing.kind for thing in _things(world, touch)}),
            }
            for touch in world.scene.touches
        ]
        told["effects"] += [
            {"effect": f"signal {kill.signal}", "path": _shown(f"{kill.how} {kill.target}"), "protected": []}
            for kill in world.scene.kills
        ]
    return told


def _things(world: Any, touch: Any) -> list[Any]:
    if touch.op in ("delete", "empty"):
        return world.things(touch)
    found = [world.protected.file(path) for path in world.targets(touch) if os.path.isfile(path)]
    return [thing for thing in found if thing is not None]


def _shown(text: str) -> str:
    """What can't be known before the command runs is shown as an ellipsis, a token not at all."""
    from guard.audit import redacted

    return redacted(text).replace("\ue10f", "…")


def log(limit: int = 20) -> list[dict[str, Any]]:
    """The last entries of the audit trail, oldest first."""
    _gate()
    from guard import audit

    rows: list[dict[str, Any]] = []
    for path in (Path(audit.file() + ".1"), Path(audit.file())):
        if path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    continue  # a line cut by a crash
    return rows[-limit:] if limit > 0 else []


def _explain(arguments: argparse.Namespace) -> int:
    command = sys.stdin.read() if arguments.text == "-" else arguments.text
    told = explain(command, os.path.abspath(arguments.cwd or os.getcwd()))
    if arguments.json:
        print(json.dumps(told, indent=1))
        return 0
    print(f"verdict: {told['decision']}")
    for title, rows in (("reads it as", told["reading"]), ("effects", [_effect(row) for row in told["effects"]])):
        if rows:
            print(f"{title}:")
            for row in rows:
                print(f"  {row}")
    for finding in told["findings"]:
        print(f"[{finding['rule']}] {finding['seen']}\n  why: {finding['why']}\n  instead: {finding['instead']}")
    return 0


def _effect(row: dict[str, Any]) -> str:
    return f"{row['effect']} {row['path']}" + (
        f"  (protected: {', '.join(row['protected'])})" if row["protected"] else ""
    )


def _log(arguments: argparse.Namespace) -> int:
    rows = log(arguments.limit)
    if arguments.json:
        print(json.dumps(rows, indent=1))
        return 0
    for row in rows:
        print(f"{row['time']}  {row['decision']:4}  {', '.join(row['rules'])}  {row['text']}")
    if not rows:
        print("nothing was stopped yet")
    return 0
