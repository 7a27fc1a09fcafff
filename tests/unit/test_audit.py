"""The audit of dependencies, and the lock file it reads: what ends CI, and what does not."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BAD = {"id": "GHSA-x", "fix_versions": ["2.1"]}


@pytest.fixture
def audit() -> Any:
    """The script as a module; it is no part of a package."""
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("packages", "code", "said"),
    [
        ([{"name": "a", "version": "2", "vulns": [BAD]}], 1, "a 2: GHSA-x, fixed in 2.1"),
        ([{"name": "a", "version": "2", "vulns": []}], 0, "1 of 1 pinned packages were looked up, 0 have"),
        ([{"name": "a", "skip_reason": "no route"}], 0, "NOT AUDITED"),
        ([{"name": "a", "skip_reason": "no"}, {"name": "b", "version": "2", "vulns": [BAD]}], 1, "1 of 2 pinned"),
    ],
    ids=["vulnerable", "sound", "unreachable", "partly reached"],
)
def test_it_fails_when_it_finds_something_and_not_when_it_can_not_look(
    packages: list[dict[str, Any]],
    code: int,
    said: str,
    audit: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(audit, "pinned", lambda extras: "")  # pyright: ignore[reportUnknownLambdaType]
    monkeypatch.setattr(audit, "audit", lambda requirements: packages)  # pyright: ignore[reportUnknownLambdaType]
    assert audit.main() == code
    assert said in capsys.readouterr().out


def test_ci_ends_with_the_audits_own_verdict():
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert "set -euo pipefail" in lines
    assert [line.split("#")[0].strip() for line in lines if "make audit" in line] == ["make audit"]


def test_every_extra_is_audited(audit: Any):
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    assert set().union(*audit.EXTRAS) == extras


def test_every_pinned_package_has_its_hash_and_ci_installs_the_lock_file_as_it_is():
    packages = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    registered = [package for package in packages if "registry" in package["source"]]
    assert len(registered) == len(packages) - 1, "all but the project itself"
    for package in registered:
        files = [*package.get("wheels", []), *([package["sdist"]] if "sdist" in package else [])]
        assert files and all(file["hash"].startswith("sha256:") for file in files), package["name"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all("--frozen" in line for line in makefile.splitlines() if "$(UV) sync" in line)
