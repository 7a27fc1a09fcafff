"""Known vulnerabilities in the pinned dependencies, through pip-audit. Exit code 1 when there is one, 0 when none was found,
also where no advisory could be reached: that is said.

    uv run python scripts/audit.py

pip-audit calls a package that it could not look up "skipped" and still ends well; here that is said in words, since a
machine without a way to the advisories has audited nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
OPTIONAL = ("plot", "trackio", "parquet", "datasets", "rouge", "lm-eval")
EXTRAS = (("mlx", *OPTIONAL), ("cuda", *OPTIONAL))  # mlx and cuda exclude each other


def pinned(extras: tuple[str, ...]) -> str:
    """The lock file as requirements."""
    flags = [flag for extra in extras for flag in ("--extra", extra)]
    command = ["uv", "export", "--frozen", "--no-emit-project", "--no-hashes", "--quiet", *flags]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def audit(requirements: str) -> list[dict[str, Any]]:
    """pip-audit's word on each package."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(requirements)
        file.flush()
        command = ["pip_audit", "--requirement", file.name, "--disable-pip", "--no-deps", "--format", "json"]
        done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        raise SystemExit(f"pip-audit gave no result: {done.stderr.strip()[-500:]}") from None


def main() -> int:
    """Print what was found; the exit code."""
    found: dict[str, dict[str, Any]] = {}
    for extras in EXTRAS:
        found |= {package["name"]: package for package in audit(pinned(extras))}
    vulnerable = [package for package in found.values() if package.get("vulns")]
    skipped = [package for package in found.values() if "skip_reason" in package]
    for package in vulnerable:
        for entry in package["vulns"]:
            fixed = ", ".join(entry["fix_versions"]) or "none"
            print(f"{package['name']} {package['version']}: {entry['id']}, fixed in {fixed}")
    looked_up = len(found) - len(skipped)
    print(f"{looked_up} of {len(found)} pinned packages were looked up, {len(vulnerable)} have known vulnerabilities")
    if skipped and not looked_up:
        print("NOT AUDITED: no advisory could be reached from this machine")
    return 1 if vulnerable else 0


if __name__ == "__main__":
    sys.exit(main())
