"""Score the gate against a labelled corpus: `python tests/guard/score.py [--json] [corpus package ...]`."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.guard.tree import Tree, ask_hook, bash, decision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def run(package: str) -> list[dict[str, Any]]:
    """One row a case: subject, label, decision, command."""
    corpus = importlib.import_module(package)
    rows = []
    with tempfile.TemporaryDirectory(prefix="gate-") as folder:
        tree = Tree(Path(folder) / "w").build()
        environment = tree.environment()

        def judge(subject: str, label: str, payload: dict[str, Any], shown: str) -> None:
            done = ask_hook(payload, environment)
            rows.append(
                {
                    "subject": subject,
                    "label": label,
                    "decision": decision(done),
                    "text": shown,
                    "answer": done.stdout.decode(),
                }
            )

        everything = list(corpus.cases())
        for subject, label, command, options in everything:
            if options.get("state") != "training":
                command = tree.fill(command, {"pid": 999_999, "pgid": 999_999, "runner": 999_998, "other": 999_997})
                judge(subject, label, bash(command, tree), command)
        with tree.training() as ids:
            for subject, label, command, options in everything:
                if options.get("state") == "training":
                    command = tree.fill(command, ids)
                    judge(subject, label, bash(command, tree), command)
        for label, tool, inputs in corpus.file_cases():
            inputs = json.loads(tree.fill(json.dumps(inputs)))
            payload = {"tool_name": tool, "cwd": str(tree.root), "tool_input": inputs, "hook_event_name": "PreToolUse"}
            judge("files", label, payload, tool + " " + json.dumps(inputs)[:200])
    return rows


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Precision, recall, false alarms: deny and ask both count as caught."""
    bad = [row for row in rows if row["label"] != "allow"]
    good = [row for row in rows if row["label"] == "allow"]
    caught = [row for row in bad if row["decision"] in ("deny", "ask")]
    alarms = [row for row in good if row["decision"] in ("deny", "ask")]
    exact = [row for row in rows if row["decision"] == row["label"]]
    return {
        "cases": len(rows), "harmful": len(bad), "harmless": len(good),
        "recall": round(len(caught) / len(bad), 4), "false_alarm_rate": round(len(alarms) / len(good), 4),
        "precision": round(len(caught) / max(1, len(caught) + len(alarms)), 4), "exact": round(len(exact) / len(rows), 4),
        "errors": sum(row["decision"].startswith("error") for row in rows),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("packages", nargs="*", default=["tests.guard.corpus"])
    parser.add_argument("--json", action="store_true", help="only the figures, as JSON")
    chosen = parser.parse_args()
    rows = [row for package in chosen.packages for row in run(package)]
    figures = summary(rows)
    if chosen.json:
        print(json.dumps(figures))
        return 0
    for row in rows:
        if row["decision"] != row["label"]:
            print(f"{row['subject']:14} want {row['label']:5} got {row['decision']:5} {row['text']!r}")
            if row["label"] == "allow":
                print("      ", row["answer"][100:420])
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
