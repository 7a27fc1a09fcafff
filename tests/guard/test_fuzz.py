"""A short run of the generator; `python tests/guard/fuzz.py --count 100000` is the long one."""

from __future__ import annotations

import subprocess
import sys

from tests.guard.tree import PLUGIN


def test_generated_commands_never_break_the_gate() -> None:
    argv = [sys.executable, str(PLUGIN / "tests/guard/fuzz.py"), "--count", "1500", "--seed", "11"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "1500 commands, 0 problems" in done.stdout
