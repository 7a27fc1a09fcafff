"""docs/settings.md names every variable that the code reads, and none that it does not."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
VARIABLE = re.compile(r"\b(?:MLX|CLAUDE|HF|HUGGING_FACE)_[A-Z][A-Z_]*[A-Z]\b")
OURS = re.compile(r"\bMLX_TRAINING_[A-Z][A-Z_]*[A-Z]\b")
# These read other people's commands, in which any variable may stand.
READS_COMMANDS = ("hooks/guard/policies/", "hooks/guard/effects/")


def named_in(*folders: str, pattern: re.Pattern[str]) -> set[str]:
    found: set[str] = set()
    for folder in folders:
        for path in (ROOT / folder).rglob("*"):
            relative = path.relative_to(ROOT).as_posix()
            if (
                path.is_file()
                and path.suffix in ("", ".py", ".sh", ".json")
                and not relative.startswith(READS_COMMANDS)
            ):
                found |= set(pattern.findall(path.read_text(encoding="utf-8", errors="replace")))
    return found


def test_every_variable_that_the_code_reads_is_on_the_page() -> None:
    read = named_in("mcp_server", "hooks", ".claude", pattern=VARIABLE)
    assert {"MLX_TRAINING_HOME", "CLAUDE_PROJECT_DIR", "HF_HUB_OFFLINE"} <= read
    assert sorted(name for name in read if f"`{name}`" not in PAGE) == []


def test_every_variable_of_the_tests_is_on_the_page() -> None:
    assert sorted(name for name in named_in("tests", pattern=OURS) if f"`{name}`" not in PAGE) == []


def test_the_page_names_no_variable_of_ours_that_nobody_reads() -> None:
    everywhere = named_in("mcp_server", "hooks", "tests", "benchmarks", ".claude", pattern=OURS)
    assert set(OURS.findall(PAGE)) - everywhere == set()
